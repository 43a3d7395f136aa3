"""Which results are kept where: decided by task, flow, the flow above and the settings, in turn.

@task(…)  >  @flow(…)  >  the flow that called it  >  settings          each option on its own
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from penstock.core.previews import mask_secrets
from penstock.errors import InvalidOptionError, ResultStorageError, SettingsError
from penstock.failpoints import FAILPOINTS, hit
from penstock.results.base import ALONE, Part, Serializer, checked_object_name
from penstock.results.container import pack
from penstock.results.references import STORED, Reference
from penstock.results.serializers import checked_serializer
from penstock.results.small import SMALL_RESULT_LIMIT, encode_small
from penstock.results.storage import checked_location, open_storage
from penstock.settings import Settings

_LONG_PIECE = 2**20


class ResultOptions(NamedTuple):
    """What a flow or task itself says; None: what holds around it.

    Attributes:
        key: a template for the name of the object; of tasks only. It asks to persist, too.
    """

    persist: bool | None = None
    storage: str | None = None
    serializer: Serializer | None = None
    key: str | None = None

    @property
    def asks(self) -> bool | None:
        """Whether it asks for results to be persisted."""
        return True if self.persist is None and self.key is not None else self.persist


class ResultPolicy(NamedTuple):
    """What holds in a flow run.

    Attributes:
        persist: large results are stored.
        storage: a folder or a URL.
        power_safe: what is stored survives a power cut, too.
        records: runs are recorded at all; what nothing refers to is not worth storing.
        is_elsewhere: this is not the process that runs the flow.
        own: what occurs in the pickle of a value that refers to things of the engine's own, which
            end with it: such a value is not kept.
    """

    persist: bool
    storage: str
    serializer: Serializer
    power_safe: bool = False
    records: bool = True
    is_elsewhere: bool = False
    own: bytes | None = None

    def under(self, options: ResultOptions | None) -> ResultPolicy:
        """Give what holds where a flow or task has options of its own."""
        if options is None:
            return self
        asks = options.asks
        return self._replace(
            persist=self.records and (self.persist if asks is None else asks),
            storage=options.storage or self.storage,
            serializer=options.serializer or self.serializer,
        )


def checked_options(
    persist: bool | None, storage: Any, serializer: Any, key: str | None = None
) -> ResultOptions | None:
    """Check the options of a flow or task; None where it says nothing.

    Raises:
        InvalidOptionError: the text names the option and its value.
    """
    if persist is None and storage is None and serializer is None and key is None:
        return None
    location, turned_by = checked_location(storage), checked_serializer(serializer)
    return ResultOptions(persist, location, turned_by, key)


def policy_of(settings: Settings) -> ResultPolicy:
    """Give what holds where no flow and no task says anything.

    Raises:
        SettingsError: a setting cannot be used; the text names it.
    """
    return _policy_of(
        settings.persist_result and settings.record,
        settings.result_storage,
        settings.result_serializer,
        settings.power_safe,
        settings.record,
    )


@cache
def _policy_of(
    persist: bool, storage: str, serializer: str, power_safe: bool, records: bool
) -> ResultPolicy:
    try:
        location = checked_location(storage, "PENSTOCK_RESULT_STORAGE")
        turned_by = checked_serializer(serializer, "PENSTOCK_RESULT_SERIALIZER")
    except InvalidOptionError as exc:
        raise SettingsError(str(exc)) from exc
    assert location is not None
    assert turned_by is not None
    return ResultPolicy(persist, location, turned_by, power_safe, records)


class Subject(NamedTuple):
    """Whose result it is.

    Attributes:
        flow_run, task_run: ids as 16 bytes; None where there is none.
        key: the name that the user has chosen for it, if any.
    """

    flow_run: bytes | None
    task_run: bytes | None
    attempt: int
    key: str | None = None

    @property
    def name(self) -> str:
        """The name of the object: made of ids, or what the user has chosen."""
        if self.key is not None:
            return checked_object_name(self.key)
        folder = ALONE if self.flow_run is None else self.flow_run.hex()
        run = "flow" if self.task_run is None else self.task_run.hex()
        return f"{folder}/{run}-{self.attempt}"


def keep(value: Any, policy: ResultPolicy, subject: Subject) -> tuple[bytes | None, str | None]:
    """Keep a result that is to be persisted: a small one as it is, a large one in the storage.

    Returns:
        What the history keeps, and its codec.

    Raises:
        ResultStorageError: it cannot be stored.
        SerializationError: it cannot be turned into bytes.
    """
    serializer = policy.serializer
    if serializer.name == "json":
        # Exact or refused, whatever its size.
        data = serializer.dumps(value)
        if len(data) <= SMALL_RESULT_LIMIT and subject.key is None:
            return data, "json"
        return _stored([[data]], policy, subject), STORED
    if subject.key is None:
        small = encode_small(value)
        if small[0] is not None:
            return small
    parts = serializer.dump_parts(value)
    if policy.own is not None and _holds(policy.own, parts):
        return None, None
    return _stored(parts, policy, subject), STORED


def _holds(own: bytes, parts: Sequence[Part]) -> bool:
    """Tell whether the pickle, which comes first, has something in it; not in long contents."""
    return any(len(piece) < _LONG_PIECE and own in bytes(piece) for piece in parts[0])


def _stored(parts: Any, policy: ResultPolicy, subject: Subject) -> bytes:
    storage = open_storage(policy.storage, policy.power_safe)
    if policy.is_elsewhere and not storage.is_shared:
        raise ResultStorageError(
            f"The result storage {policy.storage!r} is only in the memory of one process, but "
            "this task ran in another one. Use a folder, or a URL such as s3://bucket/prefix."
        )
    name = subject.name
    packed = pack(parts, policy.serializer.name, _about(subject))
    storage.write(name, packed.content)
    if FAILPOINTS:
        hit("result.stored")
    head, body = packed.digests()
    serializer = policy.serializer.name
    size = packed.content.size
    return Reference(storage.location, name, size, body, head, serializer).to_bytes()


@cache
def _host() -> str:
    return mask_secrets(os.uname().nodename)


def _about(subject: Subject) -> dict[str, Any]:
    flow_run, task_run = subject.flow_run, subject.task_run
    return {
        "flow_run_id": None if flow_run is None else flow_run.hex(),
        "task_run_id": None if task_run is None else task_run.hex(),
        "attempt": subject.attempt,
        "host": _host(),
        "pid": os.getpid(),
    }
