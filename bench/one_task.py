"""The smallest program: one flow with one task, recorded."""

from penstock import flow, task


@task
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


@flow
def one_task() -> int:
    """Run one task."""
    return double(21)


if __name__ == "__main__":
    assert one_task() == 42
