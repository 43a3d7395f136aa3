"""How many task runs travel in one message: decided from measured durations and the backlog.

Sending a message costs an engine milliseconds, whatever is in it. So small task runs travel
together; but what travels together runs one after another, so never more than keeps a worker
busy for a moment, never so many that another worker has nothing to do, and none waits for company.
"""

from __future__ import annotations

TARGET_SECONDS = 0.1
"""Work that one bundle should hold."""
LEAST_SECONDS = 0.005
"""Work below which sending a bundle costs more than it brings."""
BUDGET_SECONDS = 0.2
"""Time after which a worker gives back what it has not started of a bundle."""
MOST_TOGETHER = 1024
"""Most task runs of one bundle."""
_WEIGHT = 0.3
# What a run costs a worker beside its own code.
_OVERHEAD_SECONDS = 0.00002


class Pace:
    """How long runs of one task take: a moving average that believes recent runs more.

    Example:
        >>> pace = Pace()
        >>> pace.is_known
        False
        >>> pace.note(0.01 * 50, 50)
        >>> round(pace.seconds, 3)
        0.01
    """

    __slots__ = ("is_known", "seconds")

    def __init__(self) -> None:
        self.is_known = False
        self.seconds = 0.0

    def note_long(self) -> None:
        """Take in that a run goes on that nobody knows the length of: it is no short one."""
        if not self.is_known:
            self.note(2 * TARGET_SECONDS, 1)

    def note(self, seconds: float, runs: int) -> None:
        """Take in that some runs took some time together."""
        mean = seconds / runs
        if not self.is_known:
            self.is_known = True
            self.seconds = mean
        else:
            weight = 1 - (1 - _WEIGHT) ** min(runs, 8)
            self.seconds += weight * (mean - self.seconds)


def bundle_size(pace: Pace, backlog: int, workers: int) -> int:
    """Decide how many task runs go into the next bundle; at least 1.

    Args:
        pace: how long runs of the task take.
        backlog: how many of them wait to be sent.
        workers: how many bundles can run at the same time.

    Example:
        >>> pace = Pace()
        >>> bundle_size(pace, 1000, 2)  # nobody knows yet how long they take
        1
        >>> pace.note(0.001, 1)
        >>> bundle_size(pace, 1000, 2), bundle_size(pace, 24, 2), bundle_size(pace, 1, 2)
        (98, 6, 1)
    """
    if not pace.is_known:
        return 1
    seconds = pace.seconds + _OVERHEAD_SECONDS
    # Towards the end bundles get smaller, so that all workers end at about the same time, but
    # not so small that sending them takes longer than executing them.
    share = -(-backlog // (2 * workers))
    least = min(backlog, int(LEAST_SECONDS / seconds))
    return max(1, min(int(TARGET_SECONDS / seconds), max(share, least), MOST_TOGETHER))
