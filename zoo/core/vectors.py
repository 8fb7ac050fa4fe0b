"""Vectors in the structure of a solution, at lengths that can be squared."""

from typing import Any

import jax
import jax.numpy as jnp

from zoo.core.promotion import common_dtype, promoted
from zoo.core.solution import Solution


def unit(vector: Solution) -> Solution:
    """Returns a vector, in the structure of a solution, at length one; zero if it is zero or not finite."""
    scaled, largest = scale_down(vector)
    is_usable = jnp.isfinite(largest) & (largest > 0)
    length = _root_of_squares(scaled, largest.dtype)
    return jax.tree.map(lambda x: jnp.where(is_usable, x / jnp.where(is_usable, length, 1).astype(x.dtype), 0), scaled)


def norm(vector: Solution) -> jax.Array:
    """Returns the Euclidean norm of a vector in the structure of a solution. Its squares may be beyond the floats."""
    scaled, largest = scale_down(vector)
    return largest * _root_of_squares(scaled, largest.dtype)


def _root_of_squares(vector: Solution, dtype: Any) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(x.astype(dtype) ** 2) for x in jax.tree.leaves(vector)))


def scale_down(vector: Solution) -> tuple[Solution, jax.Array]:
    """Returns a vector over its largest absolute entry, so that squares cannot overflow, and that entry."""
    largest = jnp.max(jnp.stack(promoted(*(jnp.max(jnp.abs(x), initial=0) for x in jax.tree.leaves(vector)))))
    largest = largest.astype(at_least_float32(largest.dtype))
    divisor = jnp.where(largest > 0, largest, 1)
    return jax.tree.map(lambda x: x / divisor.astype(x.dtype), vector), largest


def squared_ratio(stds: Solution) -> jax.Array:
    """Returns the square of the largest over the smallest of standard deviations, of those that are not zero."""
    leaves = promoted(*map(jnp.ravel, jax.tree.leaves(stds)))
    largest = jnp.max(jnp.stack([jnp.max(s) for s in leaves]))
    smallest = jnp.min(jnp.stack([jnp.min(jnp.where(s > 0, s, largest)) for s in leaves]))  # what is searched at all
    return jnp.where(largest > 0, jnp.square(largest / jnp.where(smallest > 0, smallest, 1)), 1)


def in_single(values: Any) -> Any:
    """Returns a pytree of arrays, those in half precision in single; others keep their dtypes."""
    return jax.tree.map(lambda x: x.astype(at_least_float32(x.dtype)), values)


def at_least_float32(dtype: Any) -> Any:
    """Returns the dtype, or single precision instead of half, which has no linear algebra."""
    return common_dtype(dtype, jnp.float32)
