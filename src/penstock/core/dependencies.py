"""When is a task run ready? When every one of its upstreams has settled."""

from __future__ import annotations

import itertools


class Readiness:
    """Counts the upstreams of one task run as they settle, from any thread.

    `next()` on a counter is atomic, so exactly one arrival is told that it was the last.

    Example:
        >>> readiness = Readiness(1)
        >>> readiness.arrive(), readiness.arrive()
        (False, True)
    """

    __slots__ = ("_arrivals", "_needed")

    def __init__(self, upstreams: int) -> None:
        # One more than there are upstreams: the last step of the submission counts as well,
        # so that a run cannot get ready while it is still being submitted.
        self._needed = upstreams + 1
        self._arrivals = itertools.count(1)

    def arrive(self) -> bool:
        """Note that one upstream has settled, or that the submission is done; tell if last."""
        return next(self._arrivals) == self._needed
