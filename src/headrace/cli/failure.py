"""The one failure that matters out of a group of them."""

from collections.abc import Iterator
from contextlib import contextmanager

from headrace.model.errors import HeadraceError


@contextmanager
def ungrouped(*preferred: type[BaseException]) -> Iterator[None]:
    """Raise one exception in place of a group: the first ``preferred`` one, else one of ours.

    A group with neither is a bug and is raised as it is.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        errors = list(_leaves(group))
        for kind in (*preferred, HeadraceError):
            for error in errors:
                if isinstance(error, kind):
                    raise error from group
        raise


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
