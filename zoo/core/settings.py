"""Frozen, keyword-only pytree dataclasses, the base of every strategy and every problem.

Continuous settings are *leaves* (`number`): `vmap` can sweep them, and changing one never recompiles.
Settings that shape the compiled program are *static* (`static`): sizes, booleans, functions.
A field declares its bounds. They are checked when an instance is made, unless the value is traced. Types are checked as
well: numbers must be finite, and a static setting must have the type of its annotation.
"""

import contextvars
import dataclasses
import numbers
import types
from collections.abc import Iterable
from typing import Any, Self, dataclass_transform

import jax
import numpy as np

from zoo.core.checks import as_number, check_bounds, checked_by_annotation, is_whole
from zoo.core.distributions import Given, as_distribution
from zoo.core.manual import with_inherited
from zoo.core.short import short_call

_BOUNDS = "zoo_bounds"
_INTERNAL = "zoo_internal"
_SEARCH = "zoo_search"
IS_FILLED_LATER = "_zoo_is_filled_later"
"""Marks a class that is created before it has its fields, as unpickling does. `register_pytree` is called later."""
_is_rebuilt = contextvars.ContextVar("is_rebuilt", default=False)
"""Whether an instance is being built from the leaves of another. Leaves may be anything: derivatives, placeholders."""


def is_rebuilt() -> bool:
    """Whether a transformation of JAX is building an instance from leaves, which may then be anything."""
    return _is_rebuilt.get()


def static(default: Any = dataclasses.MISSING, *, at_least: int | None = None) -> Any:
    """Declares a setting that is part of the compiled program. Its values must be hashable.

    Values other than the default are checked by the annotation of the field: `bool`, `int`, `str`,
    `Literal["a", "b"]`, `Callable[..., Any]`, `tuple[int, ...]`, and unions of these.

    Args:
        default: Default value. Without one the setting is required.
        at_least: Smallest valid value of a whole number, or of each number in a tuple.
    """
    metadata = {_BOUNDS: {"at_least": at_least}} if at_least is not None else {}
    return _field(default, pytree_node=False, metadata=metadata)


def number(
    default: Any = dataclasses.MISSING,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    finite: bool = True,
    per_parameter: bool = False,
    advice: str = "",
    search: Given | None = None,
) -> Any:
    """Declares a continuous setting: a leaf that `vmap` can sweep. Changing it never recompiles.

    If the class also has a setting `<name>_schedule` (a function of the generation that multiplies this setting), this
    setting accepts a function too. The function then becomes the schedule, and this setting becomes 1.

    Args:
        default: Default value. Without one the setting is required.
        above: The value must be greater than this.
        at_least: The value must not be smaller than this.
        at_most: The value must not be greater than this.
        finite: Whether the value must be finite. NaN is never valid.
        per_parameter: Whether the value may also be a pytree in the structure of the solution, with numbers, lists and
            arrays that broadcast to its leaves. `spread_over` converts both forms to arrays.
        advice: A sentence that says what to do if the value is not a number, or is an array where one number is needed.
        search: The values that are tried where the setting is tuned (`zoo.space`), such as `zoo.space.times(0.1, 10)`
            for a setting in units of the problem. With `None`, it is not tuned.
    """
    if search is not None:
        search = as_distribution(search, "number: search")
    bounds = {"number": True, "above": above, "at_least": at_least, "at_most": at_most, "finite": finite}
    forms = {"per_parameter": per_parameter, "advice": advice}
    return _field(default, pytree_node=True, metadata={_BOUNDS: {**bounds, **forms}, _SEARCH: search})


def leaf(default: Any = dataclasses.MISSING, *, internal: bool = False) -> Any:
    """Declares a setting that is a pytree of arrays, for example a dataset.

    Args:
        default: Default value. Without one the setting is required.
        internal: Whether only the library sets it. Such a field is not shown to users as a setting.
    """
    return _field(default, pytree_node=True, metadata={_INTERNAL: True} if internal else {}, repr=not internal)


def internal_fields(cls: Any) -> set[str]:
    """Returns the names of a class's internal fields. Returns an empty set for anything but a dataclass."""
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        return set()
    return {field.name for field in dataclasses.fields(cls) if field.metadata.get(_INTERNAL)}


def bounds_of(instance: Any, name: str) -> dict[str, float | None]:
    """Returns the bounds of a setting, `above`, `at_least` and `at_most`. Returns no bounds for other attributes."""
    fields = {field.name: field for field in dataclasses.fields(instance)} if dataclasses.is_dataclass(instance) else {}
    bounds = fields[name].metadata.get(_BOUNDS, {}) if name in fields else {}
    return {bound: bounds.get(bound) for bound in ("above", "at_least", "at_most")}


def searches_of(instance: Any) -> dict[str, Given]:
    """Returns the values that are tried of each setting that is tuned, as its field declares them."""
    found = {field.name: field.metadata.get(_SEARCH) for field in dataclasses.fields(instance)}
    return {name: search for name, search in found.items() if search is not None}


def _field(default: Any, *, pytree_node: bool, metadata: dict[str, Any], repr: bool = True) -> Any:
    return dataclasses.field(default=default, metadata={"pytree_node": pytree_node, **metadata}, repr=repr)


def register_pytree(cls: Any) -> None:
    """Registers a dataclass with JAX as a pytree. All fields are leaves except the static ones.

    It does not use `jax.tree_util.register_dataclass`, as flax does. With that, two classes with equal static values
    have equal tree structures (jaxlib 0.10 and 0.11), and `jit` sometimes runs the program of the other class.
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
        values = dict(zip(leaves, children, strict=True)) | dict(zip(rest, static_values, strict=True))
        token = _is_rebuilt.set(True)
        try:
            return cls(**values)
        finally:
            _is_rebuilt.reset(token)

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(static, number, leaf))
class PytreeDataclass:
    """Base class that makes each subclass a frozen, keyword-only dataclass and registers it as a pytree."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if IS_FILLED_LATER not in vars(cls):
            dataclasses.dataclass(frozen=True, kw_only=True, repr=False)(cls)
            register_pytree(cls)
            cls.__doc__ = with_inherited(cls)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            value, bounds = getattr(self, field.name), field.metadata.get(_BOUNDS, {})
            if bounds.get("number"):
                value = self._checked_number(field, value, bounds)
            elif not field.metadata.get("pytree_node", True):
                value = self._checked_static(field, value, bounds.get("at_least"))
            elif not _is_rebuilt.get() and value is not field.default:
                value = checked_by_annotation(value, f"{type(self).__name__}.{field.name}", field.type)
            object.__setattr__(self, field.name, value)

    def check_shapes(self) -> None:
        """Raises a `ValueError` if a setting that must be one number is an array. Inside `vmap` it is one number."""
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            bounds = field.metadata.get(_BOUNDS, {})
            shape = np.shape(getattr(self, field.name)) if bounds.get("number") and not bounds["per_parameter"] else ()
            if shape:
                advice = bounds["advice"] or "To sweep several values, stack them and use jax.vmap."
                raise ValueError(
                    f"{type(self).__name__}.{field.name} is one number, got an array of shape {shape}. {advice}"
                )

    def _checked_number(self, field: Any, value: Any, bounds: dict[str, Any]) -> Any:
        if value is None and field.default is None:
            return value
        name = f"{type(self).__name__}.{field.name}"
        advice, schedule = bounds["advice"], f"{field.name}_schedule"
        if callable(value) and hasattr(self, schedule):
            if getattr(self, schedule) is not None:
                raise ValueError(
                    f"{name} is a function, but {schedule} is given as well. Give one of them: a function as "
                    f"{field.name}, or a number as {field.name} that {schedule} multiplies."
                )
            object.__setattr__(self, schedule, value)
            return 1.0
        if callable(value):
            advice = advice or "It cannot be a function of the generation, because it is set once."

        def checked(path: Any, x: Any) -> Any:
            here = f"{name}{jax.tree_util.keystr(path)}"
            if _is_rebuilt.get() and not isinstance(x, (numbers.Number, str, bytes, dict, list, tuple, types.NoneType)):
                return x
            x = as_number(x, here, finite=bounds["finite"], advice=advice)
            check_bounds(x, here, **{bound: bounds[bound] for bound in ("above", "at_least", "at_most")})
            return x

        if not bounds["per_parameter"] or value is None or jax.tree_util.all_leaves([value]):
            return checked((), value)
        if not jax.tree.leaves(value):
            raise TypeError(f"{name} must be a number, or several in the structure of the solution, got {value!r}.")
        return jax.tree_util.tree_map_with_path(checked, value)

    def _checked_static(self, field: Any, value: Any, at_least: int | None) -> Any:
        if isinstance(value, list):
            value = tuple(value)  # static values must be hashable
        name, annotation = f"{type(self).__name__}.{field.name}", field.type
        if isinstance(value, (np.ndarray, jax.Array)) and np.ndim(value):
            raise TypeError(
                f"{name} is part of the compiled program and cannot be an array, got one of shape {np.shape(value)}. "
                "Declare settings that are arrays by zoo.leaf()."
            )
        if value is field.default:
            return value
        if at_least is not None and isinstance(annotation, str):  # from __future__ import annotations
            annotation = int | None if any(word in annotation for word in ("None", "Optional")) else int
        value = checked_by_annotation(value, name, annotation)
        if type(value) is tuple:
            value = tuple(int(each) if is_whole(each) else each for each in value)
        elif is_whole(value):
            value = int(value)
        for each in value if isinstance(value, tuple) else (value,):
            check_bounds(each, name, at_least=at_least)
        return value

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)  # pyright: ignore[reportArgumentType]
        return short_call(type(self).__name__, [(each.name, getattr(self, each.name)) for each in fields if each.repr])

    def replace(self, **updates: Any) -> Self:
        """Returns a copy with the given settings changed."""
        return dataclasses.replace(self, **updates)  # pyright: ignore[reportArgumentType]
