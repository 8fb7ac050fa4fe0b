"""Imports that wait until they are used, for what another library imports for its pictures."""

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any


class _Deferred(types.ModuleType):
    """Stands in for a module, and imports it when one of its names is asked for."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:  # something is used at once
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def deferred_imports(*names: str) -> Iterator[None]:
    """Defers, for what is imported within, the imports of some modules; all others get the modules themselves.

    Args:
        *names: The modules, a package before its parts.
    """
    stand_ins = {name: _Deferred(name) for name in names if name not in sys.modules}
    for name, module in stand_ins.items():
        package, _, part = name.rpartition(".")
        if package in stand_ins:
            setattr(stand_ins[package], part, module)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
