"""Pickles functions and classes that the other process cannot import, because a script or a function defines them.

cloudpickle sends the definition of such a class. The receiver creates an empty class and then fills it. But strategies,
problems and flax dataclasses are registered with JAX when they are created, so the receiver would register them without
their fields. Leaves would be lost, silently if they have defaults. This module registers the class once it is filled.
"""

import dataclasses
import functools
import io
import types
from collections.abc import Callable
from typing import Any

import cloudpickle
import jax

from zoo.core.settings import IS_FILLED_LATER, PytreeDataclass, register_pytree


def dumps(value: Any) -> bytes:
    """Returns a pickle of a value. `pickle.loads` reads it.

    Raises:
        TypeError: If a part of the value cannot be pickled, such as a lock or an open file.
    """
    return _dumps(value, _Pickler)


def dumps_function(value: Any) -> bytes:
    """Returns a pickle for a process that need not import the zoo. Classes of the zoo get no special treatment."""
    return _dumps(value, _CodePickler)


def _dumps(value: Any, pickler: type[cloudpickle.Pickler]) -> bytes:
    file = io.BytesIO()
    pickler(file).dump(value)
    return file.getvalue()


class _CodePickler(cloudpickle.Pickler):
    """Keeps the file name of a function, so that tracebacks show where it failed. cloudpickle drops the file name."""

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, types.CodeType):
            return super().reducer_override(obj)
        reduced: Any = self.dispatch_table[types.CodeType](obj)
        make, arguments = reduced
        return make, tuple(obj.co_filename if x == "<dynamic-code>" else x for x in arguments)


class _Pickler(_CodePickler):
    def reducer_override(self, obj: Any) -> Any:
        reduced: Any = super().reducer_override(obj)
        if not isinstance(obj, type) or not isinstance(reduced, tuple):  # not a class, or a class that can be imported
            return reduced
        if type(obj).__module__.startswith("equinox."):
            raise TypeError(
                f"The Equinox module {obj.__qualname__} is defined in a script or a function, so it cannot be sent to "
                "another process. Define it in a module that the other process can import."
            )
        if issubclass(obj, PytreeDataclass):
            flag = IS_FILLED_LATER
        elif "_flax_dataclass" in vars(obj):
            flag = "_flax_dataclass"  # flax skips a class that has this attribute
        else:
            return reduced
        make, (metaclass, name, bases, namespace, *rest), *middle, fill = reduced
        namespace = {**namespace, flag: True}
        return make, (metaclass, name, bases, namespace, *rest), *middle, functools.partial(_fill_and_register, fill)


def _fill_and_register(fill: Callable[[type, Any], type], cls: Any, state: Any) -> Any:
    is_new = "__dataclass_fields__" not in vars(cls)  # cloudpickle creates a class once, but fills it every time
    fill(cls, state)
    if is_new and issubclass(cls, PytreeDataclass):
        register_pytree(cls)
    elif is_new:
        is_leaf = {field.name: field.metadata.get("pytree_node", True) for field in dataclasses.fields(cls)}
        leaves = [name for name in is_leaf if is_leaf[name]]
        jax.tree_util.register_dataclass(cls, leaves, [name for name in is_leaf if not is_leaf[name]])
    return cls
