"""The contract of cancelling, of flows that fail half-way, of order and priority."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import StateType, flow
from penstock.errors import CancelledRun
from penstock.task_runners import BaseTaskRunner
from penstock.testing.ledger import Gate, Ledger
from penstock.testing.retries import record_time
from penstock.testing.sample_tasks import add, hold, hold_async, note, note_async


class CancellationContract:
    """Sections 5 and 13: what has not started never starts; what runs is waited for."""

    def test_cancel_of_what_has_not_started(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not deferred:
                gate.open()
            first = hold.submit(ledger, gate)
            second = note.submit(ledger, "called", after=first)
            assert second.cancel() is deferred
            gate.open()
            assert second.cancelled() is deferred
            assert second.state.is_cancelled() is deferred
            assert first.result() == "held"

        example()
        assert ("called" in ledger.lines()) is not deferred

    def test_result_of_a_cancelled_run(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not deferred:
                gate.open()
            second = note.submit(ledger, "called", after=hold.submit(ledger, gate))
            if second.cancel():
                with pytest.raises(CancelledRun):
                    second.result()
                state = second.wait()
                assert state is not None
                assert state.type is StateType.CANCELLED
            gate.open()

        example()

    def test_cancelling_twice_says_false_the_second_time(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not deferred:
                gate.open()
            second = note.submit(ledger, "called", after=hold.submit(ledger, gate))
            second.cancel()
            second.wait()
            assert second.cancel() is False
            gate.open()

        example()

    def test_cancel_of_a_finished_run_is_refused(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            future = add.submit(1, 2)
            future.wait()
            assert future.cancel() is False
            assert not future.cancelled()
            assert future.result() == 3

        example()

    def test_downstream_of_a_run_cancelled_in_time_is_not_ready(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not deferred:
                gate.open()
            second = note.submit(ledger, "called", after=hold.submit(ledger, gate))
            third = note.submit(ledger, "called too", after=second)
            cancelled = second.cancel()
            gate.open()
            state = third.wait()
            assert state is not None
            assert state.name == ("NotReady" if cancelled else "Completed")

        example()

    def test_cancel_of_a_running_async_task(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not deferred:
                gate.open()
            future = hold_async.submit(ledger, gate)
            ledger.wait_for("held started")
            assert future.cancel() is deferred
            state = future.wait()
            assert state is not None
            assert state.is_cancelled() is deferred

        example()
        assert ("held ended" in ledger.lines()) is not deferred

    def test_cancel_of_a_waiting_retry(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            delay = 30 if deferred else 0
            future = record_time.with_options(retries=1, retry_delay_seconds=delay).submit(ledger)
            while not future.done() and future.state.name != "AwaitingRetry":
                future.wait(timeout=0.01)
            assert future.cancel() is deferred
            state = future.wait(timeout=10)
            assert state is not None
            assert state.is_cancelled() is deferred

        example()

    # A flow that raises.

    def test_flow_that_raises_cancels_what_has_not_started(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        kept: list[Any] = []

        @flow(task_runner=task_runner)
        def example() -> None:
            if not deferred:
                gate.open()
            first = hold.submit(ledger, gate)
            kept.append(note.submit(ledger, "called", after=first))
            ledger.wait_for("held started")
            first.add_done_callback(lambda future: None)
            kept[0].add_done_callback(lambda future: gate.open())
            raise ValueError("half-way")

        state: Any = example(return_state=True)
        assert state.message == "Flow run encountered an exception. ValueError: half-way"
        assert kept[0].state.is_cancelled() is deferred
        assert ("called" in ledger.lines()) is not deferred

    def test_flow_that_raises_waits_for_what_runs(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        kept: list[Any] = []

        @flow(task_runner=task_runner)
        def example() -> None:
            if not deferred:
                gate.open()
            kept.append(hold.submit(ledger, gate))
            blocked = note.submit(ledger, "called", after=kept[0])
            blocked.add_done_callback(lambda future: gate.open())
            ledger.wait_for("held started")
            raise ValueError("half-way")

        with pytest.raises(ValueError, match="^half-way$"):
            example()
        assert kept[0].state.is_completed()
        assert ledger.lines()[:2] == ["held started", "held ended"]

    def test_async_flow_that_raises_waits_for_what_runs(
        self, task_runner: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        kept: list[Any] = []

        @flow(task_runner=task_runner)
        async def example() -> None:
            if not deferred:
                gate.open()
            kept.append(hold.submit(ledger, gate))
            blocked = note.submit(ledger, "called", after=kept[0])
            blocked.add_done_callback(lambda future: gate.open())
            while "held started" not in ledger.lines():
                await asyncio.sleep(0)
            raise ValueError("half-way")

        with pytest.raises(ValueError, match="^half-way$"):
            asyncio.run(example())
        assert kept[0].state.is_completed()


class OrderContract:
    """Sections 4 and 8: what overlaps, what does not, and who comes first."""

    def test_two_sync_tasks_overlap_or_follow_each_other(
        self, task_runner: BaseTaskRunner, overlaps: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not overlaps:
                gate.open()
            futures = [hold.submit(ledger, gate, name) for name in ("a", "b")]
            ledger.wait_for("a started")
            ledger.wait_for("b started")
            gate.open()
            assert [future.result() for future in futures] == ["a", "b"]

        example()
        self.check_order(ledger, overlaps)

    def test_two_async_tasks_overlap_or_follow_each_other(
        self, task_runner: BaseTaskRunner, overlaps: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            if not overlaps:
                gate.open()
            futures = [hold_async.submit(ledger, gate, name) for name in ("a", "b")]
            while overlaps and len(ledger.lines()) < 2:
                await asyncio.sleep(0.002)
            gate.open()
            assert await asyncio.gather(*futures) == ["a", "b"]

        asyncio.run(example())
        self.check_order(ledger, overlaps)

    def test_sync_and_async_tasks_overlap_or_follow_each_other(
        self,
        task_runner: BaseTaskRunner,
        deferred: bool,
        overlaps: bool,
        ledger: Ledger,
        gate: Gate,
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            if not overlaps:
                gate.open()
            futures = [hold.submit(ledger, gate, "a"), hold_async.submit(ledger, gate, "b")]
            ledger.wait_for("a started")
            ledger.wait_for("b started")
            gate.open()
            assert [future.result() for future in futures] == ["a", "b"]

        example()
        if ledger.lines()[0] == "b started" and deferred and not overlaps:
            assert ledger.lines() == ["b started", "b ended", "a started", "a ended"]
        else:
            self.check_order(ledger, overlaps)

    @staticmethod
    def check_order(ledger: Ledger, overlaps: bool) -> None:
        """Check that a and b overlapped, or that b followed a."""
        if overlaps:
            assert {line.split()[1] for line in ledger.lines()[:2]} == {"started"}
        else:
            assert ledger.lines() == ["a started", "a ended", "b started", "b ended"]

    def test_called_async_tasks_overlap_with_gather(
        self, task_runner: BaseTaskRunner, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            async def open_when_both_started() -> None:
                while len(ledger.lines()) < 2:
                    await asyncio.sleep(0.002)
                gate.open()

            calls: Any = [hold_async(ledger, gate, name) for name in ("a", "b")]
            await asyncio.gather(*calls, open_when_both_started())

        asyncio.run(example())
        assert {line.split()[1] for line in ledger.lines()[:2]} == {"started"}

    def test_called_tasks_follow_each_other(
        self, task_runner: BaseTaskRunner, ledger: Ledger
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            for number in range(5):
                note(ledger, str(number))

        example()
        assert ledger.lines() == ["0", "1", "2", "3", "4"]

    def test_larger_priority_runs_sooner(
        self, one_worker: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=one_worker)
        def example() -> None:
            if not deferred:
                gate.open()
            hold.submit(ledger, gate)
            ledger.wait_for("held started")
            for priority in (1, 3, 2):
                note.with_options(priority=priority).submit(ledger, str(priority))
            gate.open()

        example()
        order = [line for line in ledger.lines() if line.isdigit()]
        if getattr(one_worker, "max_workers", None) == 1:
            assert order == ["3", "2", "1"]
        elif not deferred:
            assert order == ["1", "3", "2"]
        else:
            assert sorted(order) == ["1", "2", "3"]

    def test_priority_counts_across_sync_and_async_tasks(
        self, one_worker: BaseTaskRunner, deferred: bool, ledger: Ledger, gate: Gate
    ) -> None:
        @flow(task_runner=one_worker)
        def example() -> None:
            if not deferred:
                gate.open()
            hold_async.submit(ledger, gate)
            ledger.wait_for("held started")
            note_async.with_options(priority=1).submit(ledger, "1")
            note.with_options(priority=2).submit(ledger, "2")
            gate.open()

        example()
        order = [line for line in ledger.lines() if line.isdigit()]
        if getattr(one_worker, "max_workers", None) == 1:
            assert order == ["2", "1"]
        else:
            assert sorted(order) == ["1", "2"]
