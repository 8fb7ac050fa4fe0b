"""Frozen, keyword-only pytree dataclasses: what every strategy and every problem is.

Continuous settings are *leaves* (`number`): they can be swept with `vmap`, and changing one never recompiles.
Everything that shapes the compiled program is *static* (`static`): sizes, booleans, functions.
Bounds are declared where the field is declared and checked when an instance is made, for values that are known
then (tracers pass).
"""

import dataclasses
import numbers
from collections.abc import Iterable
from typing import Any, Self, dataclass_transform

import jax

from zoo.core.arguments import MAX_COUNT, check_flag, shown
from zoo.core.short import short_call

_BOUNDS = "zoo_bounds"
_INTERNAL = "zoo_internal"
IS_FILLED_LATER = "_zoo_is_filled_later"
"""The attribute of a class that is made before it has its fields, as unpickling does; `register_pytree` follows."""


def static(default: Any = dataclasses.MISSING, *, at_least: int | None = None) -> Any:
    """Declares a setting that is part of the compiled program; it must be hashable.

    Args:
        default: Default value; without one the setting is required.
        at_least: Smallest valid value, for a whole number.
    """
    metadata = {_BOUNDS: {"at_least": at_least}} if at_least is not None else {}
    return _field(default, pytree_node=False, metadata=metadata)


def number(
    default: Any = dataclasses.MISSING,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Any:
    """Declares a continuous setting: a leaf that `vmap` can sweep and that never recompiles.

    Args:
        default: Default value; without one the setting is required.
        above: The value must be greater than this.
        at_least: The value must not be smaller than this.
        at_most: The value must not be greater than this.
    """
    bounds = {"number": True, "above": above, "at_least": at_least, "at_most": at_most}
    return _field(default, pytree_node=True, metadata={_BOUNDS: bounds})


def leaf(default: Any = dataclasses.MISSING, *, internal: bool = False) -> Any:
    """Declares a setting that is a pytree of arrays, for example a dataset.

    Args:
        default: Default value; without one the setting is required.
        internal: Whether it is set by code around the instance only: no setting to users, and not described as one.
    """
    return _field(default, pytree_node=True, metadata={_INTERNAL: True} if internal else {}, repr=not internal)


def internal_fields(cls: Any) -> set[str]:
    """Returns the names of a class's internal fields; none for anything else."""
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        return set()
    return {field.name for field in dataclasses.fields(cls) if field.metadata.get(_INTERNAL)}


def _field(default: Any, *, pytree_node: bool, metadata: dict[str, Any], repr: bool = True) -> Any:
    return dataclasses.field(default=default, metadata={"pytree_node": pytree_node, **metadata}, repr=repr)


def register_pytree(cls: Any) -> None:
    """Registers a dataclass with JAX: its fields are leaves, but for those that are static.

    `jax.tree_util.register_dataclass`, which flax uses, will not do: two classes whose fields have equal static values
    then have equal tree structures (jaxlib 0.10 and 0.11), and `jit` now and then runs the program of the other class.
    """
    is_leaf = {field.name: field.metadata.get("pytree_node", True) for field in dataclasses.fields(cls)}
    leaves = tuple(name for name in is_leaf if is_leaf[name])
    rest = tuple(name for name in is_leaf if not is_leaf[name])

    def flatten(instance: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(instance, name) for name in leaves), tuple(getattr(instance, name) for name in rest)

    def flatten_with_keys(instance: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        children, static_values = flatten(instance)
        return tuple(zip(map(jax.tree_util.GetAttrKey, leaves), children, strict=True)), static_values

    def unflatten(static_values: tuple[Any, ...], children: Iterable[Any]) -> Any:
        return cls(**dict(zip(leaves, children, strict=True)), **dict(zip(rest, static_values, strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(static, number, leaf))
class PytreeDataclass:
    """Base that turns each subclass into a frozen, keyword-only dataclass registered as a pytree."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if IS_FILLED_LATER not in vars(cls):
            dataclasses.dataclass(frozen=True, kw_only=True, repr=False)(cls)
            register_pytree(cls)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name)
            bounds = field.metadata.get(_BOUNDS, {})
            if bounds.get("number"):
                value = self._check_number(field.name, value, field.default)
            elif "at_least" in bounds:
                value = self._check_whole_number(
                    field.name, value, optional=any(word in str(field.type) for word in ("None", "Optional"))
                )
            elif isinstance(value, list) and not field.metadata.get("pytree_node", True):
                value = tuple(value)  # static values are hashed
            elif field.type is bool:
                check_flag(value, f"{type(self).__name__}.{field.name}")
            object.__setattr__(self, field.name, value)
            self._check_bounds(field.name, value, bounds)

    def _check_number(self, name: str, value: Any, default: Any) -> Any:
        if isinstance(value, (str, bytes, bool, list, tuple, dict)) or (value is None and default is not None):
            raise TypeError(f"{type(self).__name__}.{name} must be a number, got {value!r}.")
        # One kind of scalar: an integer, or a NumPy scalar of fixed dtype, would be another traced type, and recompile.
        return float(value) if isinstance(value, numbers.Real) else value

    def _check_whole_number(self, name: str, value: Any, *, optional: bool) -> Any:
        if value is None and optional:
            return value
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(f"{type(self).__name__}.{name} must be a whole number, got {value!r}.")
        if int(value) > MAX_COUNT:
            raise ValueError(f"{type(self).__name__}.{name} must be at most {MAX_COUNT}, got {shown(value)}.")
        return int(value)

    def _check_bounds(self, name: str, value: Any, bounds: dict[str, Any]) -> None:
        if not isinstance(value, numbers.Real):  # arrays, tracers and placeholders cannot be compared here
            return
        above, at_least, at_most = (bounds.get(name) for name in ("above", "at_least", "at_most"))
        if above is not None and not value > above:
            raise ValueError(f"{type(self).__name__}.{name} must be greater than {above:g}, got {value!r}.")
        if at_least is not None and not value >= at_least:
            raise ValueError(f"{type(self).__name__}.{name} must be at least {at_least:g}, got {value!r}.")
        if at_most is not None and not value <= at_most:
            raise ValueError(f"{type(self).__name__}.{name} must be at most {at_most:g}, got {value!r}.")

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)  # pyright: ignore[reportArgumentType]
        return short_call(type(self).__name__, [(each.name, getattr(self, each.name)) for each in fields if each.repr])

    def replace(self, **updates: Any) -> Self:
        """Returns a copy with the given settings changed."""
        return dataclasses.replace(self, **updates)  # pyright: ignore[reportArgumentType]
