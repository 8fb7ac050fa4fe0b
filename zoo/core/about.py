"""What is known of an object besides what it holds, for as long as it exists."""

import weakref
from typing import Any

_known: dict[int, dict[Any, Any]] = {}  # by address


def about(instance: Any) -> dict[Any, Any]:
    """Returns the dictionary of an object, which ends with it; a copy of the object has another one."""
    if id(instance) not in _known:
        _known[id(instance)] = {}
        weakref.finalize(instance, _known.pop, id(instance), None)
    return _known[id(instance)]
