"""Fitness in one form, by one rule, wherever it comes in: floating-point numbers in the order that they came in."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.vectors import at_least_float32

_DIGITS = 100  # of a value that is no number, in messages


def as_fitness(values: Any, source: str) -> jax.Array:
    """Returns fitness values as a floating-point array.

    Whole numbers and booleans are converted. Values from the host, in double precision or as wide integers, are
    rounded to JAX's precision. Half precision becomes single: it cannot hold the ranks of a large population.

    Args:
        values: An array or a sequence of numbers.
        source: What gave them, for messages: `"SNES.tell"`.

    Raises:
        TypeError: If they are no real numbers.
    """
    if not isinstance(values, jax.Array):
        values = jnp.asarray(on_host(values, source, jax.dtypes.canonicalize_dtype(float)))
    if jnp.issubdtype(values.dtype, jnp.floating):
        return values.astype(at_least_float32(values.dtype))
    _check_kind(values.dtype, values.dtype, source)
    return values.astype(float)


def on_host(values: Any, source: str, dtype: Any) -> np.ndarray:
    """Returns fitness values as a NumPy array of a floating-point dtype; warns where different ones become equal.

    Raises:
        TypeError: If they are no real numbers.
    """
    try:
        values = np.asarray(values)
    except ValueError:  # rows of different lengths
        _check_kind(None, values, source)
    _check_kind(values.dtype, values, source)
    if jnp.issubdtype(values.dtype, jnp.floating) and values.dtype.itemsize <= np.dtype(dtype).itemsize:
        return values
    with np.errstate(over="ignore"):  # beyond the range is infinite, the worst
        rounded = values.astype(dtype)
    num_distinct = len(np.unique(rounded))
    if num_distinct < rounded.size and num_distinct < len(np.unique(values)):
        warnings.warn(  # the same text every time, so that it is shown once
            f"{source}: fitness values that differ are equal in {np.dtype(dtype).name}, which JAX computes in. "
            "Subtract what they have in common, or set jax_enable_x64.",
            RuntimeWarning,
            stacklevel=3,
        )
    return rounded


def _check_kind(dtype: Any, values: Any, source: str) -> None:
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    if dtype is None or not any(jnp.issubdtype(dtype, kind) for kind in kinds):
        raise TypeError(f"{source} expects fitness values that are real numbers, got {values!r:.{_DIGITS}}.")
