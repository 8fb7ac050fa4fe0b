"""What the adapters share: the import of optional libraries."""

import importlib
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
