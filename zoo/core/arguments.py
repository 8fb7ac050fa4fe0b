"""Arguments of public functions, checked before anything else is done: one line says what was expected."""

import functools
import inspect
import math
import numbers
import os
import pathlib
import types
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

MAX_COUNT = 2**31 - 1
"""The largest whole number that a program counts to."""

_SHOWN = 60  # characters of a value, in messages


def checks_arguments(fn: Callable[P, R]) -> Callable[P, R]:
    """Makes a function check those arguments whose annotation is a flag, a float, a path or an optional function.

    Whole numbers have bounds, which an annotation does not say: see `check_count`.
    """
    name = fn.__qualname__.removesuffix(".__init__")
    parameters = inspect.signature(fn).parameters
    checks = {each: check for each, p in parameters.items() if (check := _check_of(p.annotation)) is not None}
    order = tuple(parameters)

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for each, value in (*zip(order, args, strict=False), *kwargs.items()):
            if each in checks:
                checks[each](value, f"{name}: {each}")
        return fn(*args, **kwargs)

    return call


def check_flag(value: Any, name: str) -> None:
    """Raises a `TypeError` unless a value is true or false; text such as "no" would count as true."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}.")


def check_number(value: Any, name: str) -> None:
    """Raises an error unless a value is a real number, or a scalar array, perhaps traced; NaN is none."""
    is_scalar = isinstance(value, (jax.Array, np.ndarray)) and value.ndim == 0 and jnp.isrealobj(value)
    if not is_scalar and (isinstance(value, bool) or not isinstance(value, numbers.Real)):
        raise TypeError(f"{name} must be a number, got {shown(value)}.")
    try:
        is_nan = isinstance(value, numbers.Real) and math.isnan(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number that a float can hold, got {shown(value)}.") from None
    if is_nan:
        raise ValueError(f"{name} must be a number, got nan.")


def check_count(value: Any, name: str, at_least: int = 1) -> None:
    """Raises a `ValueError` unless a value is a whole number from `at_least` to `MAX_COUNT`."""
    if not is_whole(value) or value < at_least:
        expected = "a positive whole number" if at_least == 1 else f"a whole number of at least {at_least}"
        raise ValueError(f"{name} must be {expected}, got {shown(value)}.")
    if value > MAX_COUNT:
        raise ValueError(f"{name} must be at most {MAX_COUNT}, got {shown(value)}.")


def check_numbers(values: Any, name: str, count: int | None = None) -> None:
    """Raises an error unless values are a tuple of numbers, so many of them, or arrays; NaN is none."""
    if is_placeholder(values) or isinstance(values, (jax.Array, np.ndarray)):
        return
    expected = "numbers" if count is None else f"{count} numbers"
    if not isinstance(values, (tuple, list)):
        raise TypeError(f"{name} must be {expected}, got {shown(values)}.")
    if len(values) != count and not (count is None and len(values)):
        raise ValueError(f"{name} must be {expected}, got {shown(values)}.")
    for value in values:
        if not is_placeholder(value) and not isinstance(value, (jax.Array, np.ndarray)):  # several at once, for `vmap`
            check_number(value, name)


def check_instance(value: Any, name: str, *types: type, expected: str) -> None:
    """Raises a `TypeError` unless a value is an instance, or perhaps what a transformation of JAX puts in its place."""
    if not is_placeholder(value) and not isinstance(value, types):
        raise TypeError(f"{name} must be {expected}, got {shown(value)}.")


def is_placeholder(value: Any) -> bool:
    """Whether a value may be what a transformation of JAX puts in the place of a leaf: none of Python's own kinds."""
    return not isinstance(value, (str, bytes, numbers.Number, type(None), tuple, list, dict, jax.Array, np.ndarray))


def as_pairs(options: Any, name: str) -> tuple[tuple[str, Any], ...]:
    """Returns a mapping, or pairs, as a tuple of pairs, which can be hashed.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(options, Mapping):
        return tuple(sorted(options.items()))
    is_pairs = isinstance(options, (tuple, list)) and all(isinstance(x, (tuple, list)) and len(x) == 2 for x in options)
    if not is_pairs:
        raise TypeError(f"{name} must be a mapping, or pairs of names and values, got {shown(options)}.")
    return tuple((key, value) for key, value in options)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, of Python or NumPy; booleans are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """Returns a value as it is shown in messages: not all of an array, nor of a long text or number."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"an array {value.dtype}{list(value.shape)}"
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return f"a number of more than {_SHOWN} digits"
    text = repr(value).replace("\n", " ")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _check_path(value: Any, name: str) -> None:
    if not isinstance(value, (str, os.PathLike)) or not str(value):
        raise (ValueError if value == "" else TypeError)(f"{name} must be a path, got {shown(value)}.")


def _check_function(value: Any, name: str) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {shown(value)}.")


def _check_of(annotation: Any) -> Callable[[Any, str], None] | None:
    """Returns what checks values of an annotation; `None`: nothing does."""
    parts = set(get_args(annotation)) if isinstance(annotation, types.UnionType) else {annotation}
    some = parts - {type(None)}
    check = None
    if some == {bool}:
        check = check_flag
    elif some == {float}:
        check = check_number
    elif some == {str, pathlib.Path}:
        check = _check_path
    elif some != parts and all(get_origin(part) is Callable for part in some):
        check = _check_function
    if check is None or some == parts:
        return check
    return lambda value, name: None if value is None else check(value, name)
