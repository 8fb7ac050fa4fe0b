"""Facts about a problem or a strategy that are computed once in its lifetime."""

from collections.abc import Callable
from typing import Any, TypeVar

from zoo.core.about import about
from zoo.loop.provenance import describe_numbers

T = TypeVar("T")


def once_per_object(instance: Any, what: str, make: Callable[[], T]) -> T:
    """Returns what `make` returns, and calls it once per object and per setting of JAX's precision and generator.

    Args:
        instance: The strategy or the problem, which does not change.
        what: The name of the fact.
        make: Computes the fact.
    """
    known, name = about(instance), (what, *describe_numbers().values())
    if name not in known:
        known[name] = make()
    return known[name]
