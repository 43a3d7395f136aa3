"""Runs as the code on a worker knows them; what they do not know they ask the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from penstock.remote.failures import state_from_record
from penstock.remote.messages import Value
from penstock.remote.values import decode
from penstock.runs import FlowRun, TaskRun
from penstock.states import StateType


class WorkerTaskRun(TaskRun):
    """A task run that was sent to this worker, or called directly by one.

    Attributes:
        attempt_started_at: when the present attempt began.
        bundle, item: what it travelled in; None for one that was called directly.
    """

    bundle: Any = None
    item: Any = None
    attempt_started_at: int = 0
    is_numbered = True

    @property
    def name(self) -> str:
        """The name of the run; the driver counts the runs that are called directly here."""
        if not self.is_numbered and self.custom_name is None:
            self.number = self.live.ask("number", self.key)
            self.is_numbered = True
        return self.custom_name or f"{self.definition.name}-{self.number}"


class ArrivedParameters(Mapping[str, Any]):
    """Parameters that arrived packed one by one; one that could not travel raises when read."""

    def __init__(self, packed: dict[str, tuple[Any, ...]]) -> None:
        self._packed = packed

    def __getitem__(self, name: str) -> Any:
        kind, what = self._packed[name]
        if kind == "value":
            return decode(Value(*what))
        raise state_from_record(what, None).data

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __repr__(self) -> str:
        return f"<parameters {', '.join(self)}>"


class WorkerFlowRun(FlowRun):
    """The flow run as it is known on a worker; its parameters are asked for when needed."""

    _parameters: Mapping[str, Any] | None = None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The arguments by name, brought from the driver."""
        if self._parameters is None:
            self._parameters = ArrivedParameters(self.live.ask("parameters"))
        return self._parameters

    @parameters.setter
    def parameters(self, parameters: Mapping[str, Any]) -> None:
        """Nothing: what a flow run begins with is not what it has here."""


class FlowElsewhere:
    """What is known here of the flow whose run this is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = name
        self.is_async = False
        self.parameter_names: tuple[str, ...] = ()
        self.hooks: Mapping[StateType, Sequence[Callable[..., Any]]] = {}

    def __repr__(self) -> str:
        return f"<Flow {self.name!r}, which runs in another process>"
