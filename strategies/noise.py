"""Gaussian noise in the structure of a solution."""

import math
from typing import Any

import jax
import jax.numpy as jnp


def normal_like(key: jax.Array, solution: Any, *, num_samples: int) -> Any:
    """Returns standard normal noise, each leaf `[num_samples, *leaf.shape]` in the leaf's dtype."""
    leaves, structure = jax.tree.flatten(solution)
    keys = jax.random.split(key, len(leaves)) if len(leaves) > 1 else [key]
    # Drawn flat and reshaped: with odd trailing axes XLA's CPU backend takes several times as long to compile the draw.
    noise = [
        jax.random.normal(k, (num_samples * leaf.size,), leaf.dtype).reshape(num_samples, *leaf.shape)
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, noise)


def antithetic_pairs(mean: Any, sigma: jax.Array, noise: Any) -> Any:
    """Returns the population mean ± sigma * noise: first all members with plus, then all with minus.

    Args:
        mean: A solution.
        sigma: Scalar.
        noise: `[num_pairs, ...]` in the structure of the solution.
    """

    def pairs(m: jax.Array, z: jax.Array) -> jax.Array:
        # A product with ±sigma is one broadcast; concatenating both halves would be a copy more.
        signed = jnp.stack([sigma, -sigma]).astype(m.dtype).reshape(2, *(1,) * z.ndim)
        return (m + signed * z).reshape(2 * z.shape[0], *m.shape)

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
