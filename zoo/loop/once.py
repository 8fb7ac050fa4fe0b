"""What is worked out about a problem or a strategy once, for as long as it exists."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

from zoo.core.about import about

T = TypeVar("T")


def once_per_object(instance: Any, what: str, make: Callable[[], T]) -> T:
    """Returns what `make` returns for an object that does not change, called once in each precision."""
    config: Any = jax.config  # whose type does not list its entries
    known, name = about(instance), (what, config.jax_enable_x64)
    if name not in known:
        known[name] = make()
    return known[name]
