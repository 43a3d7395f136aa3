"""Every exception that Penstock raises, in one tree.

    PenstockError
    ├── InvalidNameError (ValueError)            a flow, task or run name that cannot be used
    ├── ReservedArgumentError (TypeError)        a function claims `return_state` or `wait_for`
    ├── InvalidOptionError (ValueError)          an option of a decorator or runner that cannot be
    ├── ParameterBindError (TypeError)           arguments do not fit the function's signature
    ├── ParameterTypeError (TypeError)           arguments of a type that does not fit
    ├── MappingMissingIterable (TypeError)       `map` got nothing to map over
    ├── MappingLengthMismatch (ValueError)       `map` got iterables of unequal lengths
    ├── MissingContextError (RuntimeError)       asked for the current run where there is none
    ├── OutsideFlowError (RuntimeError)          `.submit` or `.map` outside a flow run
    ├── StartedByImportError (RuntimeError)      an import on a worker would start a flow
    ├── BlockingWaitError (RuntimeError)         a wait that would block the loop it waits for
    ├── DeadlockError (RuntimeError)             task runs that wait for each other
    ├── TaskRunnerError (RuntimeError)           a runner started twice, or used before its start
    ├── EngineError (RuntimeError)               an engine cannot be started or used
    │   ├── EngineUnreachable (ConnectionError)  it does not answer at its address
    │   ├── EngineLost                           it is gone while task runs were on it
    │   └── WorkerLost                           the worker that had a task run died
    ├── ResourceError (ValueError)               a request no engine here can ever meet
    ├── MissingDependencyError (ImportError)     an optional package is not installed
    ├── SerializationError (TypeError)           a value that cannot travel or be kept
    ├── CacheKeyError (ValueError)               a `cache_key_fn` gave what is no key
    ├── SettingsError (ValueError)               a setting that cannot be used
    ├── RunError (RuntimeError)                  raised by `result()` for a run without a value
    │   ├── FailedRun                            failed with a message but no exception
    │   ├── CrashedRun                           the infrastructure lost it
    │   ├── CancelledRun                         cancelled
    │   ├── UpstreamFailed                       not started because an upstream did not complete
    │   ├── UnfinishedRun                        not final yet
    │   ├── ResultNotKept                        it completed, but its value was not kept
    │   └── RemoteTaskError                      its exception cannot be rebuilt here
    ├── RunTimedOut (TimeoutError)               exceeded its `timeout_seconds`
    ├── ResumeError (RuntimeError)               a flow run that cannot be continued
    │   └── LeaseHeld                            another process drives it
    ├── RunNotFound (LookupError)                no such run in the history
    ├── AmbiguousRun (LookupError)               an id prefix that fits several runs
    ├── ResultStorageError (RuntimeError)        a result cannot be stored or read
    │   ├── ResultMissing (LookupError)          nothing is stored under its name any more
    │   └── ResultCorrupt                        not what was stored: it is never loaded
    └── HistoryError (RuntimeError)
        ├── HistoryTooNew                        written by a newer Penstock; left untouched
        ├── HistoryCorrupt                       not a history, or a damaged one
        └── HistoryUnavailable                   cannot be opened or written

`TerminationSignal` and `LeaseLost` stand outside the tree: they derive from `SystemExit`, so that a
process ended by SIGTERM or SIGHUP, or one whose flow run another process has taken over, unwinds
cleanly and leaves with the right exit code.
"""

from __future__ import annotations


class PenstockError(Exception):
    """Base of every error that Penstock raises on its own account."""


class InvalidNameError(PenstockError, ValueError):
    """A flow, task or run name that cannot be used."""


class ReservedArgumentError(PenstockError, TypeError):
    """A function has a parameter whose name Penstock keeps for itself."""


class InvalidOptionError(PenstockError, ValueError):
    """An option of a decorator or of a task runner that cannot be."""


class ParameterBindError(PenstockError, TypeError):
    """The arguments of a call do not fit the function's signature."""


class ParameterTypeError(PenstockError, TypeError):
    """The arguments of a flow do not fit its annotations, or those of a function their use."""


class MappingMissingIterable(PenstockError, TypeError):
    """`map` was given nothing that it could iterate over."""


class MappingLengthMismatch(PenstockError, ValueError):
    """`map` was given iterables of different lengths."""


class MissingContextError(PenstockError, RuntimeError):
    """The current run was asked for outside any run."""


class OutsideFlowError(PenstockError, RuntimeError):
    """`.submit` or `.map` was called outside a flow run."""


class StartedByImportError(PenstockError, RuntimeError):
    """A worker imports a module, and the import would start a flow there."""


class BlockingWaitError(PenstockError, RuntimeError):
    """A blocking wait on the event loop that must produce the awaited value."""


class DeadlockError(PenstockError, RuntimeError):
    """Task runs wait for each other in a circle."""


class TaskRunnerError(PenstockError, RuntimeError):
    """A task runner was used in a way its life does not allow."""


class EngineError(PenstockError, RuntimeError):
    """An engine, such as a Dask cluster, cannot be started or used."""


class EngineLost(EngineError):
    """The engine is gone while task runs were on it."""


class WorkerLost(EngineError):
    """The worker that had a task run died or was lost."""


class EngineUnreachable(EngineError, ConnectionError):
    """An engine does not answer at its address."""


class ResourceError(PenstockError, ValueError):
    """A task asks for more of a resource than its engine has."""


class MissingDependencyError(PenstockError, ImportError):
    """An optional package that a feature needs is not installed."""


class SerializationError(PenstockError, TypeError):
    """A value cannot be turned into bytes."""


class CacheKeyError(PenstockError, ValueError):
    """A `cache_key_fn` gave something that is no key."""


class SettingsError(PenstockError, ValueError):
    """A setting has a value that cannot be used."""


class RunError(PenstockError, RuntimeError):
    """A run has no value to give; subclasses say why."""


class FailedRun(RunError):
    """The run failed with a message but without an exception."""


class CrashedRun(RunError):
    """The run was lost by the infrastructure, or ended by an interrupt."""


class CancelledRun(RunError):
    """The run was cancelled."""


class UpstreamFailed(RunError):
    """The run was never started because an upstream did not complete."""


class UnfinishedRun(RunError):
    """The run is not final yet."""


class ResultNotKept(RunError):
    """The run completed, but its value was not kept in the history."""


class RemoteTaskError(RunError):
    """The run failed with an exception that cannot be rebuilt in this process."""


class RunTimedOut(PenstockError, TimeoutError):
    """The run exceeded its `timeout_seconds`."""


class ResumeError(PenstockError, RuntimeError):
    """A flow run cannot be continued; nothing was changed."""


class LeaseHeld(ResumeError):
    """Another process drives the flow run."""


class RunNotFound(PenstockError, LookupError):
    """The history holds no such run."""


class AmbiguousRun(PenstockError, LookupError):
    """An id prefix fits more than one run."""


class HistoryError(PenstockError, RuntimeError):
    """The history cannot do what was asked."""


class HistoryTooNew(HistoryError):
    """The history was written by a newer Penstock and was left untouched."""


class HistoryCorrupt(HistoryError):
    """The file is damaged, or is no history at all."""


class HistoryUnavailable(HistoryError):
    """The history cannot be opened or written."""


class ResultStorageError(PenstockError, RuntimeError):
    """A result cannot be stored, or what was stored cannot be read."""


class ResultMissing(ResultStorageError, LookupError):
    """What was stored is not there any more."""


class ResultCorrupt(ResultStorageError):
    """What lies there is not what was stored; it was not loaded."""


class TerminationSignal(SystemExit):
    """SIGTERM or SIGHUP arrived while a flow ran; `code` is 128 plus its number."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(128 + signal_number)


class LeaseLost(SystemExit):
    """Another process has taken over the flow run; this one can record no more of it."""

    def __init__(self, message: str = "") -> None:
        super().__init__(75)
        self.message = message

    def __str__(self) -> str:
        return self.message
