"""What is worked out about a problem or a strategy once, for as long as it exists."""

from collections.abc import Callable
from typing import Any, TypeVar

from zoo.core.about import about
from zoo.loop.provenance import describe_numbers

T = TypeVar("T")


def once_per_object(instance: Any, what: str, make: Callable[[], T]) -> T:
    """Returns what `make` returns for an object that does not change, called once for each of JAX's precisions."""
    known, name = about(instance), (what, *describe_numbers().values())
    if name not in known:
        known[name] = make()
    return known[name]
