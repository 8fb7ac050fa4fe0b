"""What is worked out about a problem or a strategy once, for as long as it exists."""

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import jax

T = TypeVar("T")
_known: dict[int, dict[Any, Any]] = {}  # by address


def once_per_object(instance: Any, what: str, make: Callable[[], T]) -> T:
    """Returns what `make` returns for an object that does not change, called once in each precision."""
    if id(instance) not in _known:
        _known[id(instance)] = {}
        weakref.finalize(instance, _known.pop, id(instance), None)
    config: Any = jax.config  # whose type does not list its entries
    known, name = _known[id(instance)], (what, config.jax_enable_x64)
    if name not in known:
        known[name] = make()
    return known[name]
