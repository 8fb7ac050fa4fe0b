"""What the adapters share: optional libraries, and settings that can be hashed."""

import importlib
from collections.abc import Mapping
from typing import Any


def import_peer(module: str, name: str) -> Any:
    """Imports an optional library.

    Raises:
        ModuleNotFoundError: If it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{name} is not installed: pip install es-zoo[peers]", name=error.name) from error


def as_pairs(options: Any) -> Any:
    """Returns a mapping as a tuple of pairs, which can be hashed; what is none is returned as it is."""
    return tuple(sorted(options.items())) if isinstance(options, Mapping) else options
