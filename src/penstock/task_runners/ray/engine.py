"""Ray as an engine: bundles become Ray tasks, large values stay in Ray's object store.

dispatcher ──send──► run.remote(…) ──► Ray ──► worker ─┐ the end of a bundle, with
           ◄──hear── arrivals ◄────────────────────────┤ what it reports last
                        ▲                              │
                      listener ◄── relay ◄─────────────┘ what it reports meanwhile
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import weakref
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from time import monotonic
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import RayActorError

from penstock.errors import EngineLost, WorkerLost
from penstock.remote.dispatch import Dispatcher
from penstock.remote.engine import Bundle, Engine, Options, options_elsewhere
from penstock.remote.messages import CANCEL
from penstock.remote.recovery import Unrun
from penstock.runtime.blocking import ServiceThread
from penstock.states import describe_exception
from penstock.task_runners.ray.arrivals import Arrivals
from penstock.task_runners.ray.connection import alive_nodes, connect
from penstock.task_runners.ray.kept import Kept, Raw, RayFetch, Shared, lost_object
from penstock.task_runners.ray.limits import Limits, Overdue
from penstock.task_runners.ray.options import NOTHING, Given, current_options
from penstock.task_runners.ray.problems import explained
from penstock.task_runners.ray.relay import ASKED, BEGUN, DEAD_SECONDS, KILL, LOST, REPORT, UNSENT
from penstock.task_runners.ray.relays import close_relay, open_relay
from penstock.task_runners.ray.resources import as_options, is_possible, merged, refusal, wanted
from penstock.task_runners.ray.watch import Watch
from penstock.task_runners.ray.worker import run

logger = logging.getLogger("penstock.task_runner.ray")
_OTHERS = frozenset({"max_retries", "retry_exceptions", "enable_task_events"})
_MOST_FUNCTIONS = 200
_JOIN_SECONDS = 5.0
_LAST_SECONDS = 0.5
_FORGOTTEN_TEXT = (
    f"The flow run's process stood still for more than {DEAD_SECONDS:g} s, so its workers on Ray "
    "took it for dead. Run the flow again."
)


async def open_engine(runner: Any, exit_stack: AsyncExitStack) -> RayEngine:
    """Open what a `RayTaskRunner` asks for; the stack closes it."""

    def opened() -> tuple[Callable[[], None], RayEngine]:
        release = connect(runner, runner.logger)
        try:
            return release, RayEngine()
        except BaseException:
            release()
            raise

    release, engine = await asyncio.to_thread(opened)

    async def close() -> None:
        await asyncio.to_thread(engine.close)
        await asyncio.to_thread(release)

    exit_stack.push_async_callback(close)
    return engine


class RayEngine(Engine):
    """One flow run's use of the Ray that is initialised in this process. Thread-safe."""

    def __init__(self) -> None:
        self.reply_to = uuid4().hex
        self.is_closed = False
        self.defaults: dict[str, Any] = {"num_cpus": 1, "max_retries": 0}
        self._nodes = alive_nodes()
        self._looked_at = monotonic()
        self._relay = open_relay(self.reply_to, self._nodes)
        self._functions: list[Any] = []
        self._depths: dict[str, int] = {}
        self._dispatcher: Dispatcher | None = None
        self._arrivals = Arrivals(lambda report: None)
        self._sent: dict[str, Bundle] = {}
        # Ray's references to what has not ended: it must not lose them while it waits for that.
        self._waited_for: dict[str, Any] = {}
        self._workers: dict[str, str] = {}
        self._begun: dict[str, str] = {}
        self._told: set[str] = set()
        self._killed: set[str] = set()
        self._failed: dict[str, tuple[Bundle, BaseException]] = {}
        self._refs: dict[str, Any] = {}
        self._kept: weakref.WeakValueDictionary[str, Kept] = weakref.WeakValueDictionary()
        self._shared: weakref.WeakValueDictionary[str, Shared] = weakref.WeakValueDictionary()
        self._checked: dict[Options, Any] = {}
        self._listener = ServiceThread(target=self._listen, name="penstock-ray-listen", daemon=True)
        self._limits = Limits(self._goes_on)
        self._watch = Watch(self)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a method of our channel on the relay; gives Ray's reference."""
        return self._relay.call.remote(self.reply_to, name, *arguments)

    def listen(self, dispatcher: Dispatcher) -> None:
        """Report to a dispatcher from now on."""
        self._dispatcher = dispatcher
        self._arrivals = Arrivals(dispatcher.hear)
        self._listener.start()
        self._watch.start()

    # What the dispatcher asks for.

    def workers(self) -> int:
        return max(1, int(sum(node["Resources"].get("CPU", 0) for node in self._nodes)))

    def names(self) -> frozenset[str]:
        # Worker processes come and go, and any of them may get the next bundle.
        return frozenset()

    def send(self, bundle: Bundle, data: bytes) -> None:
        natives = [part.native.ref for part in bundle.parts.values()]
        self._sent[bundle.id] = bundle
        depth = self._depth_of(bundle)
        if depth:
            self._depths[bundle.id] = depth
        options = {**self.defaults, **_options_of(bundle)}
        try:
            ref = (
                self._function(depth)
                .options(name=bundle.name, **options)
                .remote(self.reply_to, bundle.id, self._relay, data, list(bundle.parts), *natives)
            )
        except BaseException:
            del self._sent[bundle.id]
            raise
        self._limits.expect(bundle)
        self._waited_for[bundle.id] = bundle.native = ref
        ref.future().add_done_callback(lambda future: self._ended(bundle, future))

    def _function(self, number: int = 0) -> Any:
        """Give the remote function that executes bundles: another one for each number.

        Ray starts workers for one function with growing delays once as many run as there are
        processors for, and it counts those that wait for others. So task runs that others may
        wait for are of another function than those.
        """
        while len(self._functions) <= number:
            self._functions.append(ray.remote(run))
        return self._functions[number]

    def _depth_of(self, bundle: Bundle) -> int:
        """Count how deep in other task runs the calls of a bundle were submitted."""
        assert self._dispatcher is not None
        depth = 0
        for cargo in bundle.cargo.values():
            # A value that is made again has a stand-in there, which has no parent.
            parent = self._dispatcher.open.get(getattr(cargo.run, "parent_key", None) or b"")
            if parent is not None and parent.bundle is not None:
                depth = max(depth, 1 + self._depths.get(parent.bundle.id, 0))
        return min(depth, _MOST_FUNCTIONS)

    def options_of(self, call: Any) -> Options | None:
        given = options_elsewhere(call, self) or call.context.get(current_options, NOTHING)
        resources = call.task.resources
        if not given and not resources:
            return None
        options = merged(as_options(resources or {}), given)
        places = {name: value for name, value in options.items() if name not in _OTHERS}
        others = {name: value for name, value in options.items() if name in _OTHERS}
        found = Options(Given(places) if places else None, Given(others))
        if found not in self._checked:
            # What Ray refuses is an error of whoever submits, not of the engine.
            self._function().options(**options)
            self._refuse_impossible(call.task.name, wanted(options))
            self._checked[found] = None
        return found

    def check(self, task_name: str, resources: Mapping[str, float]) -> None:
        """Refuse what no node can give.

        Raises:
            ResourceError: the text says what the nodes have.
        """
        self._refuse_impossible(task_name, wanted(as_options(resources)))

    def _refuse_impossible(self, task_name: str, asked: Mapping[str, float]) -> None:
        if is_possible(asked, self._totals()):
            return
        self.look_at_nodes()
        if not is_possible(asked, self._totals()) and not _may_grow(asked):
            raise refusal(task_name, asked, self._totals())

    def _totals(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self._nodes]

    def look_at_nodes(self) -> None:
        """Ask Ray for its nodes."""
        before = self.workers()
        self._nodes = alive_nodes()
        if self.workers() != before and self._dispatcher is not None:
            self._dispatcher.wake()

    def tell(self, worker: str, data: bytes) -> None:
        with suppress(Exception):
            self._call("tell", worker, data)

    def tell_about(self, bundle: Bundle, data: bytes) -> None:
        _, (kind, keys) = pickle.loads(data)
        if kind == CANCEL:
            self._limits.call_off(bundle, keys)
        with suppress(Exception):
            self._call("tell_about", bundle.id, data)

    def is_stuck(self, worker: str) -> None:
        bundle = self._sent.get(self._workers.get(worker, ""))
        if bundle is None:
            return
        logger.warning("A task run cannot be stopped on worker %s: the worker is killed.", worker)
        self._killed.add(bundle.id)
        # Not by Ray: its forced cancellation of a task that ends just then ends this process.
        self.tell(worker, KILL + bundle.id.encode())

    def check_limits(self) -> None:
        """Find code that goes on although it should have stopped, and end its worker."""
        self._limits.check([node["NodeID"] for node in self._nodes])

    def _goes_on(self, overdue: Overdue, limit: float | None) -> None:
        """Take that a worker is killed from outside: it can neither stop its code nor say so."""
        dispatcher = self._dispatcher
        cargo = None if dispatcher is None else dispatcher.open.get(overdue.running.key)
        if dispatcher is None or cargo is None or cargo.bundle is None:
            return
        logger.warning(
            "A task run does not stop on Ray, in process %d: the worker is killed.", overdue.pid
        )
        self._killed.add(cargo.bundle.id)
        if limit is not None:
            told = cargo.bundle, overdue.running, limit, f"{overdue.node[:8]}:{overdue.pid}"
            dispatcher.post(dispatcher.reports.time_out, *told)

    # Values.

    def share(self, digest: str, buffer: Any) -> Shared:
        shared = self._shared.get(digest)
        if shared is None or shared.is_lost:
            shared = self._shared[digest] = Shared(Kept(digest, ray.put(Raw(buffer))))
        return shared

    def put(self, value: Any) -> Kept:
        kept = Kept(f"value-{uuid4().hex}", ray.put(value))
        self._kept[kept.name] = kept
        return kept

    def fetcher(self, name: str | None, worker: str) -> RayFetch:
        if name is None:
            return RayFetch(self, None, worker)
        kept = Kept(name, self._refs.pop(name))
        self._kept[name] = kept
        return RayFetch(self, kept, worker)

    def recover(self, fetch: RayFetch) -> None:
        """Have a value made again that is lost; blocks."""
        assert self._dispatcher is not None
        self._dispatcher.recoveries.wait_for(fetch)

    # What Ray and the workers tell.

    def _ended(self, bundle: Bundle, future: Any) -> None:
        """Take how the Ray task of a bundle ended, in a thread of Ray's."""
        problem: BaseException | None = None
        try:
            last = future.result()
        except BaseException as exc:
            last, problem = None, exc
        self._waited_for.pop(bundle.id, None)
        if last is not None:
            worker, number, data, refs = last
            if data is not None:
                # In any case: what the worker reports later is not heard before it.
                self._report(worker, number, data, refs)
                number += 1
        if bundle.id not in self._sent:
            return  # nobody waits for it any more
        if last is not None:
            # What it has reported before may still be on its way through the relay.
            self._arrivals.when_heard(worker, number, lambda: self._through(bundle))
            return
        self._failed[bundle.id] = bundle, problem or Unrun("A worker gave it back.")
        if not self._is_relayed(bundle):
            self._lost(bundle.id)

    def _through(self, bundle: Bundle) -> None:
        """Take that the worker of a bundle has reported everything."""
        self._forget(bundle)
        self._end(bundle, None)

    def _is_relayed(self, bundle: Bundle) -> bool:
        """Have the end of a bundle come back behind what its worker has reported."""
        try:
            self._call("lost", bundle.id)
        except Exception:
            return False
        return True

    def _lost(self, bundle_id: str) -> None:
        bundle, problem = self._failed.pop(bundle_id, (None, None))
        if bundle is None or problem is None:
            return
        worker = self._begun.get(bundle_id)
        was_killed = bundle_id in self._killed
        self._forget(bundle)
        lost = lost_object(problem)
        if lost is not None:
            self._note_loss(bundle, lost)
            problem = Unrun("Something that the task run needs is lost.")
        elif was_killed:
            problem = Unrun(f"The worker {worker} was killed, since its code could not be stopped.")
        elif not isinstance(problem, WorkerLost):
            problem = explained(problem, worker)
        if isinstance(problem, WorkerLost) and worker is not None and lost is None:
            self._arrivals.end(worker)
        self._end(bundle, problem)

    def _note_loss(self, bundle: Bundle, lost: str) -> None:
        for part in bundle.parts.values():
            if part.native is not None and part.native.ref.hex() == lost:
                part.native.is_lost = True

    def _forget(self, bundle: Bundle) -> None:
        self._sent.pop(bundle.id, None)
        self._killed.discard(bundle.id)
        self._depths.pop(bundle.id, None)
        worker = self._begun.pop(bundle.id, None)
        if worker is not None and self._workers.get(worker) == bundle.id:
            del self._workers[worker]

    def _unsent(self, bundle_id: str) -> None:
        bundle = self._sent.get(bundle_id)
        if bundle is not None and self._dispatcher is not None:
            # Ray keeps it in its queue; the worker that gets it gives it back at once.
            self._forget(bundle)
            bundle.native = None
            self._dispatcher.unsent(bundle)

    def _end(self, bundle: Bundle, problem: BaseException | None) -> None:
        bundle.native = None
        if self._dispatcher is not None:
            self._dispatcher.sent_ended(bundle, problem, None)

    def _report(self, worker: str, number: int, data: bytes, refs: dict[str, Any]) -> None:
        self._refs.update(refs)
        self._arrivals.take(worker, number, data)

    # The listener.

    def _listen(self) -> None:
        while not self.is_closed:
            try:
                news = ray.get(self._call("take"))
            except Exception as exc:
                if not self.is_closed:
                    self.fail(_loss(exc))
                return
            if news is None:
                if not self.is_closed:
                    self.fail(EngineLost(_FORGOTTEN_TEXT))
                return
            for one in news:
                try:
                    self._take(*one)
                except Exception:
                    logger.exception("What a Ray worker tells could not be taken in.")

    def _take(self, kind: int, *what: Any) -> None:
        if kind == REPORT:
            self._report(*what)
        elif kind == BEGUN:
            worker, bundle_id = what
            if bundle_id in self._sent:
                self._begun[bundle_id], self._workers[worker] = worker, bundle_id
        elif kind == ASKED:
            name, number = what
            kept = self._kept.get(name)
            is_here = kept is not None and not kept.is_lost
            self._call("give", number, [kept.ref] if kept is not None and is_here else None)
        elif kind == LOST:
            self._lost(*what)
        elif kind == UNSENT:
            self._unsent(*what)

    def fail(self, problem: EngineLost) -> None:
        """Give everything up: Ray is gone."""
        if self._dispatcher is not None:
            self._dispatcher.fail(problem)

    def close(self) -> None:
        """Leave Ray: end the relay, without which nothing of ours runs on, and threads; blocks."""
        self._await_last()
        self.is_closed = True
        self._watch.stop()
        if not self._watch.is_lost:
            with suppress(Exception):
                close_relay(self._relay, self.reply_to)
        if self._listener.ident is not None:
            self._listener.join(_JOIN_SECONDS)
        self._refs.clear()

    def _await_last(self) -> None:
        """Let Ray notice that bundles have ended whose last reports came through the relay."""
        refs = [bundle.native for bundle in list(self._sent.values()) if bundle.native is not None]
        if refs and not self._watch.is_lost:
            with suppress(Exception):
                ray.wait(refs, num_returns=len(refs), timeout=_LAST_SECONDS, fetch_local=False)


def _options_of(bundle: Bundle) -> dict[str, Any]:
    if bundle.options is None:
        return {}
    places: Any = bundle.options.places
    others: Any = bundle.options.others
    return {**(places or {}), **others}


def _may_grow(asked: Mapping[str, float]) -> bool:
    """Tell whether an autoscaler may start a node that has as much."""
    try:
        most = ray._private.state.state.get_max_resources_from_cluster_config()
    except Exception:
        return False  # through Ray's client it cannot be asked
    return most is not None and is_possible(asked, [most])


def _loss(problem: Exception) -> EngineLost:
    what = "The relay on Ray has died" if isinstance(problem, RayActorError) else "Ray is gone"
    return EngineLost(
        f"{what}, so the flow run cannot go on: {describe_exception(problem)}. See that Ray runs, "
        "and run the flow again."
    )
