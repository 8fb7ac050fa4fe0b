"""Converts fitness values to floating-point arrays. All code that receives fitness uses these functions."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.vectors import at_least_float32

_DIGITS = 100  # characters that a message shows of a value


def as_fitness(values: Any, source: str) -> jax.Array:
    """Returns fitness values as a floating-point array, in the given order.

    Converts integers and booleans. Rounds values from the host (double precision, wide integers) to JAX's precision.
    Converts half precision to single, because half precision cannot hold the ranks of a large population.

    Args:
        values: An array or a sequence of numbers.
        source: The function that received or returned the values, for messages, such as `"SNES.tell"`.

    Raises:
        TypeError: If the values are not real numbers.
    """
    if not isinstance(values, jax.Array):
        values = jnp.asarray(on_host(values, source, jax.dtypes.canonicalize_dtype(float)))
    if jnp.issubdtype(values.dtype, jnp.floating):
        return values.astype(at_least_float32(values.dtype))
    _check_kind(values.dtype, values.dtype, source)
    return values.astype(float)


def on_host(values: Any, source: str, dtype: Any) -> np.ndarray:
    """Returns fitness values as a NumPy array of a floating-point dtype. Warns if different values become equal.

    Raises:
        TypeError: If the values are not real numbers.
    """
    try:
        values = np.asarray(values)
    except ValueError:  # rows of different lengths
        _check_kind(None, values, source)
    _check_kind(values.dtype, values, source)
    if jnp.issubdtype(values.dtype, jnp.floating) and values.dtype.itemsize <= np.dtype(dtype).itemsize:
        return values
    with np.errstate(over="ignore"):  # a value beyond the range becomes infinite, which is the worst
        rounded = values.astype(dtype)
    num_distinct = len(np.unique(rounded))
    if num_distinct < rounded.size and num_distinct < len(np.unique(values)):
        warnings.warn(  # the text is always the same, so Python shows it once
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
