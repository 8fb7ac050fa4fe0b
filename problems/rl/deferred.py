"""Defers imports until they are used: another library imports these modules only to draw pictures."""

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any


class _Deferred(types.ModuleType):
    """Stands in for a module, and imports it when one of its attributes is read."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:  # an attribute is read during the outer import
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def deferred_imports(*names: str) -> Iterator[None]:
    """Defers imports of the named modules by code that is imported inside the `with` block.

    Code outside the block gets the modules themselves.

    Args:
        *names: Names of the modules. A package must come before its submodules.
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
