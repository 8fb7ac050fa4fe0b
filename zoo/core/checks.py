"""Checks of the user's values: numbers, counts, and values of annotated settings. An error is one line.

Values that are not known yet pass: tracers and `jax.ShapeDtypeStruct`.
"""

import collections.abc
import functools
import math
import numbers
import operator
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

MAX_COUNT = 2**31 - 1
"""The largest valid count: programs count in 32-bit integers."""

_LONGEST = 60  # characters that a message shows of a value


def as_number(value: Any, name: str, *, finite: bool = True, advice: str = "") -> Any:
    """Returns a real number as a float. Returns an array of real numbers unchanged; it may be traced.

    Args:
        value: The value to check.
        name: The name of the value, for messages.
        finite: Whether the value must be finite. NaN is never valid.
        advice: A sentence that says what to do if the value is not a number.

    Raises:
        TypeError: If the value is not a real number.
        ValueError: If the value is NaN, or if it is infinite and `finite` is true.
    """
    if type(value) is float and (math.isfinite(value) or (not finite and not math.isnan(value))):
        return value  # the usual case; the checks below take ten times as long
    array = _known_array(value)
    is_other_array = array is not None and not any(jnp.issubdtype(array.dtype, x) for x in (jnp.floating, jnp.integer))
    kinds = (numbers.Real, np.ndarray, jax.Array, jax.ShapeDtypeStruct)
    is_number = isinstance(value, kinds) and not isinstance(value, (bool, np.bool_))
    if not is_number or is_other_array:
        raise TypeError(f"{name} must be a number, got {shown(value)}.{advice and f' {advice}'}")
    if isinstance(value, numbers.Real):
        try:
            # An integer, or a NumPy scalar of fixed dtype, would have another traced type and cause a recompilation.
            value = float(value)
        except OverflowError:
            raise ValueError(f"{name} must be a number that a float can hold, got {shown(value)}.") from None
        array = np.asarray(value)
    if array is not None:
        wrong = np.isnan(array) | (np.isinf(array) if finite else False)
        if np.any(wrong):
            raise ValueError(f"{name} must be {'finite' if finite else 'a number'}, got {array[wrong].flat[0]:g}.")
    return value


def check_number(value: Any, name: str) -> None:
    """Raises an error unless a value is one real number. It may be traced or infinite, but not NaN; see `as_number`."""
    if np.ndim(as_number(value, name, finite=False)):
        raise TypeError(f"{name} must be a number, got {shown(value)}.")


def as_scalar(value: Any, name: str, *, finite: bool = True) -> float:
    """Returns one real number as a float. It must be known, so it cannot be traced; see `as_number`."""
    value = as_number(value, name, finite=finite)
    if np.ndim(value) or (not isinstance(value, float) and _known_array(value) is None):
        raise TypeError(f"{name} must be a number, got {shown(value)}.")
    return float(value)


def as_count(value: Any, name: str, *, at_least: int = 1) -> int:
    """Returns a whole number from `at_least` to `MAX_COUNT` as an integer.

    Raises:
        TypeError: If the value is not a whole number.
        ValueError: If the value is too small or too large.
    """
    value = checked_by_annotation(value, name, int)
    check_bounds(value, name, at_least=at_least)
    return int(value)


def check_bounds(
    value: Any, name: str, *, above: float | None = None, at_least: float | None = None, at_most: float | None = None
) -> None:
    """Raises a `ValueError` if a number, or an entry of an array, is out of bounds."""
    known = value if isinstance(value, (float, numbers.Real)) else _known_array(value)
    if known is None:
        return
    for bound, words, holds in (
        (above, "greater than", operator.gt),
        (at_least, "at least", operator.ge),
        (at_most, "at most", operator.le),
    ):
        if bound is None:
            continue
        is_inside = holds(known, bound)
        if is_inside is not True and not np.all(is_inside):
            array = np.asarray(known)
            found = shown(array.item()) if array.ndim == 0 else f"{array[~is_inside].flat[0]:g} in an array"
            raise ValueError(f"{name} must be {words} {bound:g}, got {found}.")


def as_pairs(options: Any, name: str) -> tuple[tuple[str, Any], ...]:
    """Returns a mapping, or a list of pairs (name, value), as a tuple of pairs, so that it can be hashed.

    Raises:
        TypeError: If `options` is neither.
    """
    pairs = tuple(sorted(options.items())) if isinstance(options, Mapping) else options
    are_pairs = isinstance(pairs, (tuple, list)) and all(
        isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
    )
    if not are_pairs:
        raise TypeError(f"{name} must be a mapping from names to values, or pairs of them, got {shown(options)}.")
    return tuple((key, value) for key, value in pairs)


def shown(value: Any) -> str:
    """Returns a value as one line for messages. Arrays are shown by dtype and shape, long values are cut off."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"an array {value.dtype}{list(value.shape)}"
    if isinstance(value, int) and abs(value) >= 10**_LONGEST:
        return f"a number of more than {_LONGEST} digits"
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _known_array(value: Any) -> np.ndarray | None:
    """Returns an array as a NumPy array if its values are known in this process, and `None` for anything else."""
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, jax.Array) or isinstance(value, Tracer):
        return None
    if value.is_deleted() or not value.is_fully_addressable or jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return None
    with jax.transfer_guard_device_to_host("allow"):
        return np.asarray(value)


def checked_by_annotation(value: Any, name: str, annotation: Any) -> Any:
    """Returns the value of a setting or an argument if it fits its annotation.

    Understands `bool`, `int`, `float`, `str`, `Literal`, functions, mappings, `None`, classes, tuples of whole numbers,
    numbers or text, and unions of these. Any other annotation accepts every value. Where a tuple of whole numbers is
    expected, one whole number becomes a tuple of one.

    Raises:
        TypeError: If the value has another type.
        ValueError: If the value is a text that is not among the choices, or a whole number that is too large.
    """
    kinds = _alternatives(annotation)
    value = value.item() if isinstance(value, np.bool_) else value
    if None in kinds:
        return value
    for each in value if isinstance(value, tuple) else (value,):
        if is_whole(each) and abs(int(each)) > MAX_COUNT:
            raise ValueError(f"{name} must be at most {MAX_COUNT}, got {shown(each)}.")
    if any(fits(value) for _, fits in kinds):
        return value
    if is_whole(value) and any(words == _TUPLES[int][0] for words, _ in kinds):
        return (value,)
    choices = [words for words, _ in kinds if words[:1] in "'\""]
    words = [words for words, _ in kinds if words not in (*choices, "None")]
    if choices:
        words = [f"one of {', '.join(choices)}", *words] if len(choices) > 2 else [*choices, *words]
    error = ValueError if choices and isinstance(value, str) else TypeError
    raise error(f"{name} must be {' or '.join(words)}, got {shown(value)}.")


def _alternatives(annotation: Any) -> list[Any]:
    """Returns the alternatives that an annotation allows, as pairs: the words for messages, and a predicate of values.

    The list contains `None` if the annotation, or a member of the union, is not understood.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return [pair for each in arguments for pair in _alternatives(each)]
    if origin is Literal:
        return [(repr(choice), functools.partial(_is_same, choice)) for choice in arguments]
    if origin is tuple and arguments and arguments[0] in _TUPLES and set(arguments[1:]) <= {arguments[0], Ellipsis}:
        words, fits = _TUPLES[arguments[0]]
        size = None if Ellipsis in arguments else len(arguments)
        return [(words if size is None else f"{size} {words}", functools.partial(_is_tuple, fits, size))]
    if origin is collections.abc.Callable:
        return [("a function", callable)]
    if origin in (dict, collections.abc.Mapping):
        return [("a dictionary", functools.partial(_is_instance, origin))]
    is_class = origin is None and isinstance(annotation, type) and annotation not in _TOO_WIDE
    if not is_class or getattr(annotation, "_is_protocol", False):
        return [None]
    return [_SIMPLE.get(annotation) or (f"a {annotation.__name__}", functools.partial(_is_instance, annotation))]


def _is_tuple(fits: Callable[[Any], bool], size: int | None, value: Any) -> bool:
    is_right_size = isinstance(value, (tuple, list)) and size in (None, len(value))
    return is_right_size and all(map(fits, value))


def _is_instance(cls: type, value: Any) -> bool:
    return isinstance(value, cls)


def _is_same(choice: Any, value: Any) -> bool:
    return type(value) is type(choice) and value == choice


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number and not a boolean."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and value == value


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number, or an array without axes, which may be traced."""
    is_array = isinstance(value, (np.ndarray, jax.Array)) and np.ndim(value) == 0
    return is_array or (_is_real(value) and bool(abs(value) < float("inf")))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_SIMPLE: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("True or False", lambda value: isinstance(value, bool)),
    int: ("a whole number", is_whole),
    float: ("a number", _is_real),
    str: ("text", _is_text),
    types.NoneType: ("None", lambda value: value is None),
}
_TUPLES: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("whole numbers such as (32, 32)", is_whole),
    float: ("numbers", _is_number),
    str: ("texts such as ('a', 'b')", _is_text),
}
_TOO_WIDE = (Any, object, jax.Array, np.ndarray)
