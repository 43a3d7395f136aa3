"""The whole contract as one pytest class."""

from __future__ import annotations

from penstock.testing.arguments import ArgumentsContract
from penstock.testing.caching import CachingContract
from penstock.testing.calling import CallingContract
from penstock.testing.cancellation import CancellationContract, OrderContract
from penstock.testing.context import (
    ContextContract,
    HooksContract,
    LogsContract,
    NamesContract,
    TagsContract,
)
from penstock.testing.dependencies import DependenciesContract
from penstock.testing.failures import CrashesContract, FailuresContract
from penstock.testing.final_states import (
    AggregatedContract,
    RaisedContract,
    ReturnedDataContract,
    UnseenFailuresContract,
)
from penstock.testing.fixtures import ContractFixtures
from penstock.testing.futures import FuturesContract, WaitingContract
from penstock.testing.kept_results import KeptResultsContract
from penstock.testing.lifecycle import LifecycleContract
from penstock.testing.mapping import MappingContract
from penstock.testing.nesting import NestedTasksContract, SubflowsContract
from penstock.testing.resources import ResourcesContract
from penstock.testing.results import ResultsContract
from penstock.testing.retries import RetriesContract
from penstock.testing.timeouts import TimeoutsContract
from penstock.testing.upstreams import UpstreamContract


class FlowsContract(
    CallingContract,
    ArgumentsContract,
    ResultsContract,
    KeptResultsContract,
    FuturesContract,
    WaitingContract,
    DependenciesContract,
    UpstreamContract,
    MappingContract,
    FailuresContract,
    CrashesContract,
    RetriesContract,
    CachingContract,
    TimeoutsContract,
    RaisedContract,
    AggregatedContract,
    UnseenFailuresContract,
    ReturnedDataContract,
    NestedTasksContract,
    SubflowsContract,
    ContextContract,
    NamesContract,
    TagsContract,
    HooksContract,
    LogsContract,
    CancellationContract,
    OrderContract,
    ResourcesContract,
):
    """What flows and tasks do on every runner."""


class TaskRunnerContract(LifecycleContract, FlowsContract, ContractFixtures):
    """Everything a task runner must do, one test for each behaviour.

    Example:
        In a test module::

            class TestMyTaskRunner(TaskRunnerContract):
                @pytest.fixture
                def task_runner(self):
                    return MyTaskRunner()
    """
