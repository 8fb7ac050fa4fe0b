"""Gaussian noise in the structure of a solution."""

import math
from typing import Any

import jax
import jax.numpy as jnp

_LARGE_LEAF = 256


def normal_like(key: jax.Array, solution: Any, *, num_samples: int) -> Any:
    """Returns standard normal noise, each leaf `[num_samples, *leaf.shape]` in the leaf's dtype."""
    leaves, structure = jax.tree.flatten(solution)
    keys = jax.random.split(key, len(leaves)) if len(leaves) > 1 else [key]
    noise = [_normal(k, num_samples, leaf) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, noise)


def _normal(key: jax.Array, num_samples: int, leaf: jax.Array) -> jax.Array:
    # XLA's CPU backend takes several times as long to compile a draw with short trailing axes, so small leaves are
    # drawn flat; large ones in two axes, which it splits better over threads.
    shape = (num_samples, leaf.size) if leaf.size >= _LARGE_LEAF else (num_samples * leaf.size,)
    return jax.random.normal(key, shape, leaf.dtype).reshape(num_samples, *leaf.shape)


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
