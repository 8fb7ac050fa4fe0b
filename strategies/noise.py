"""Gaussian noise in the structure of a solution."""

import math
from typing import Any

import jax
import jax.numpy as jnp

_LARGE_LEAF = 256


def normal_like(key: jax.Array, solution: Any, *, num_samples: int) -> Any:
    """Returns standard normal noise, each leaf `[num_samples, *leaf.shape]` in the leaf's dtype."""
    leaves, structure = jax.tree.flatten(solution)
    # Small leaves are drawn together: a draw costs many small kernels, and much time to compile.
    small = [leaf.size < _LARGE_LEAF and leaf.dtype == leaves[0].dtype for leaf in leaves]
    key_small, *keys = jax.random.split(key, 1 + small.count(False))
    num_small = sum(leaf.size for leaf, is_small in zip(leaves, small, strict=True) if is_small)
    pool = jax.random.normal(key_small, (num_samples * num_small,), leaves[0].dtype).reshape(num_samples, num_small)
    noise, position = [], 0
    for leaf, is_small in zip(leaves, small, strict=True):
        if is_small:
            flat = jax.lax.slice_in_dim(pool, position, position + leaf.size, axis=1)
            position += leaf.size
        else:
            flat = jax.random.normal(keys.pop(), (num_samples, leaf.size), leaf.dtype)
        noise.append(flat.reshape(num_samples, *leaf.shape))
    return jax.tree.unflatten(structure, noise)


def antithetic_pairs(mean: Any, sigma: jax.Array, noise: Any) -> Any:
    """Returns the population mean ± sigma * noise: first all members with plus, then all with minus.

    Args:
        mean: A solution.
        sigma: Scalar.
        noise: `[num_pairs, ...]` in the structure of the solution.
    """

    def pairs(m: jax.Array, z: jax.Array) -> jax.Array:
        step = sigma.astype(m.dtype) * z
        return jnp.concatenate([m + step, m - step])

    return jax.tree.map(pairs, mean, noise)


def weighted_sum(weights: jax.Array, population: Any) -> Any:
    """Returns the sum of the members times their weights, `[population_size]`, in the structure of one solution."""

    def contract(leaf: jax.Array) -> jax.Array:
        flat = leaf.reshape(leaf.shape[0], math.prod(leaf.shape[1:]))
        return (weights.astype(leaf.dtype) @ flat).reshape(leaf.shape[1:])

    return jax.tree.map(contract, population)


def clip_std(std: jax.Array) -> jax.Array:
    """Keeps a standard deviation where it can be divided by and squared without under- or overflow."""
    limits = jnp.finfo(std.dtype)
    return jnp.clip(std, float(limits.tiny) ** 0.5, float(limits.max) ** 0.5)
