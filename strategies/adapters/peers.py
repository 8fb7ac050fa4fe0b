"""What the adapters share: optional libraries, and settings that can be hashed."""

import importlib
from collections.abc import Mapping
from typing import Any

from zoo.core.checks import shown


def import_peer(module: str, name: str) -> Any:
    """Imports an optional library.

    Raises:
        ModuleNotFoundError: If it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{name} is not installed: pip install es-zoo[peers]", name=error.name) from error


def as_pairs(options: Any, name: str = "options") -> tuple[tuple[str, Any], ...]:
    """Returns a mapping, or pairs of names and values, as a tuple of pairs, which can be hashed.

    Raises:
        TypeError: If it is neither.
    """
    pairs = tuple(sorted(options.items())) if isinstance(options, Mapping) else options
    are_pairs = isinstance(pairs, (tuple, list)) and all(
        isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
    )
    if not are_pairs:
        raise TypeError(f"{name} must be a mapping from names to values, or pairs of them, got {shown(options)}.")
    return tuple(map(tuple, pairs))
