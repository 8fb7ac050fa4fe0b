"""Notes about an object, kept outside the object for as long as it exists."""

import weakref
from typing import Any

_known: dict[int, dict[Any, Any]] = {}  # by address


def about(instance: Any) -> dict[Any, Any]:
    """Returns the dictionary of notes of an object. It is dropped with the object. A copy of the object has its own."""
    if id(instance) not in _known:
        _known[id(instance)] = {}
        weakref.finalize(instance, _known.pop, id(instance), None)
    return _known[id(instance)]
