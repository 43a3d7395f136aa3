from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.caching import Flights, Kept, expires_at, is_expired


@dataclass(eq=False)
class Request:
    run_key: bytes
    key: str = "k"
    inside: tuple[bytes, ...] = field(default=())


@pytest.fixture
def flights() -> Flights:
    numbers = itertools.count()
    return Flights(lambda: b"claim %d" % next(numbers))


def test_the_first_leads_and_the_others_wait(flights: Flights) -> None:
    first, second, other = Request(b"1"), Request(b"2"), Request(b"3", "other")

    flight = flights.join(first)
    assert flight is not None
    assert flights.join(second) is flight
    assert (flight.leader, flight.waiting) == (first, [second])
    lone = flights.join(other)
    assert lone is not None
    assert lone.leader is other
    assert lone.claim != flight.claim


def test_the_next_one_leads_when_the_leader_leaves(flights: Flights) -> None:
    first, second = Request(b"1"), Request(b"2")
    flight = flights.join(first)
    flights.join(second)

    assert flight is not None
    assert flights.leave(b"1") is flight
    assert flights.pass_on(flight) is second
    assert flights.leave(b"2") is flight
    assert flights.pass_on(flight) is None
    assert flight.is_over
    assert flights.join(Request(b"4")) is not flight


def test_one_that_waits_may_leave(flights: Flights) -> None:
    flight = flights.join(Request(b"1"))
    flights.join(Request(b"2"))

    assert flights.leave(b"2") is None
    assert flights.leave(b"never came") is None
    assert flight is not None
    assert flight.waiting == []


def test_ending_tells_who_waits(flights: Flights) -> None:
    first, second, third = Request(b"1"), Request(b"2"), Request(b"3")
    flight = flights.join(first)
    flights.join(second)
    flights.join(third)

    assert flight is not None
    assert flights.end(flight) == [second, third]
    assert flights.flight_of(b"2") is None
    assert flights.leave(b"1") is None


def test_asking_again_replaces_the_question(flights: Flights) -> None:
    first, second = Request(b"1"), Request(b"2")
    flight = flights.join(first)
    flights.join(second)
    first_again, second_again = Request(b"1"), Request(b"2")

    assert flights.join(first_again) is flights.join(second_again) is flight
    assert flight is not None
    assert (flight.leader, flight.waiting) == (first_again, [second_again])


def test_a_run_inside_the_leader_does_not_wait_for_it(flights: Flights) -> None:
    flights.join(Request(b"1"))

    assert flights.join(Request(b"2", inside=(b"1",))) is None


def test_a_circle_through_others_is_seen(flights: Flights) -> None:
    flights.join(Request(b"1", "a"))
    flights.join(Request(b"2", "b"))
    flights.join(Request(b"3", "c"))
    # Inside 1 somebody waits for 2, and inside 2 for 3.
    assert flights.join(Request(b"11", "b", (b"1",))) is not None
    assert flights.join(Request(b"21", "c", (b"2",))) is not None

    assert flights.join(Request(b"31", "a", (b"3",))) is None
    assert flights.join(Request(b"41", "a", (b"4",))) is not None


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=30))
def test_every_request_leads_or_waits_until_it_leaves(steps: list[tuple[str, bool]]) -> None:
    flights = Flights(lambda: b"")
    numbers = itertools.count()
    here: list[Request] = []
    for key, comes in steps:
        if comes or not here:
            request = Request(b"%d" % next(numbers), key)
            here.append(request)
            assert flights.join(request) is not None
        else:
            flight = flights.leave(here.pop(0).run_key)
            if flight is not None:
                flights.pass_on(flight)
        for request in here:
            flight = flights.flight_of(request.run_key)
            assert flight is not None
            assert not flight.is_over
            assert request is flight.leader or request in flight.waiting
        leaders = {id(flights.flight_of(request.run_key)) for request in here}
        assert len(leaders) == len({request.key for request in here})


def test_expiration() -> None:
    kept = Kept(b"1", "json", b"run", 0, expires_at(1_000_000_000, 0.5))

    assert kept.expires_at == 1_500_000_000
    assert not is_expired(kept, 1_499_999_999)
    assert is_expired(kept, 1_500_000_000)
    assert expires_at(0, None) is None
    assert expires_at(2**62, 9e9) == 2**63 - 1
