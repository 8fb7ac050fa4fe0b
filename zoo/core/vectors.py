"""Vectors in the structure of a solution, scaled so that their squares neither overflow nor underflow."""

from typing import Any

import jax
import jax.numpy as jnp

from zoo.core.promotion import common_dtype, promoted
from zoo.core.solution import Solution


def unit(vector: Solution) -> Solution:
    """Returns a vector, in the structure of a solution, scaled to length one. Zero if it is zero or not finite."""
    scaled, largest = scale_down(vector)
    is_usable = jnp.isfinite(largest) & (largest > 0)
    length = _root_of_squares(scaled, largest.dtype)
    return jax.tree.map(lambda x: jnp.where(is_usable, x / jnp.where(is_usable, length, 1).astype(x.dtype), 0), scaled)


def norm(vector: Solution) -> jax.Array:
    """Returns the Euclidean norm of all entries of a solution together, a scalar.

    Entries are scaled before they are squared, so that large ones do not overflow.
    """
    scaled, largest = scale_down(vector)
    return largest * _root_of_squares(scaled, largest.dtype)


def _root_of_squares(vector: Solution, dtype: Any) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(x.astype(dtype) ** 2) for x in jax.tree.leaves(vector)))


def scale_down(vector: Solution) -> tuple[Solution, jax.Array]:
    """Returns a vector divided by its largest absolute entry, so that squares cannot overflow, and that entry."""
    largest = jnp.max(jnp.stack(promoted(*(jnp.max(jnp.abs(x), initial=0) for x in jax.tree.leaves(vector)))))
    largest = largest.astype(at_least_float32(largest.dtype))
    divisor = jnp.where(largest > 0, largest, 1)
    return jax.tree.map(lambda x: x / divisor.astype(x.dtype), vector), largest


def squared_ratio(stds: Solution) -> jax.Array:
    """Returns the squared ratio of the largest to the smallest standard deviation, without those that are zero."""
    leaves = promoted(*map(jnp.ravel, jax.tree.leaves(stds)))
    largest = jnp.max(jnp.stack([jnp.max(s) for s in leaves]))
    # Entries that are not searched have standard deviation zero.
    smallest = jnp.min(jnp.stack([jnp.min(jnp.where(s > 0, s, largest)) for s in leaves]))
    return jnp.where(largest > 0, jnp.square(largest / jnp.where(smallest > 0, smallest, 1)), 1)


def in_single(values: Any) -> Any:
    """Returns a pytree of arrays with half precision converted to single. Other arrays keep their dtypes."""
    return jax.tree.map(lambda x: x.astype(at_least_float32(x.dtype)), values)


def at_least_float32(dtype: Any) -> Any:
    """Returns the dtype, or single precision in place of half, for which JAX has no linear algebra."""
    return common_dtype(dtype, jnp.float32)
