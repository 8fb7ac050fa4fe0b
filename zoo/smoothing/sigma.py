"""The choice of sigma: the rate at which perturbations change a result, and the sigma with a wanted rate."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from zoo.smoothing.block import Block

_SIGMA_PRECISION = 1.1
"""The bisection for sigma stops when the ends of the bracket are within this factor."""


def find_sigma(block: Block, keys: Any, basis: Any, x: Any, rest: Any) -> jax.Array:
    """Returns the sigma at which `target_rate` of the probes change a result, `[*lead]`."""
    low, high = (math.log(end) for end in block.settings.sigma_range)
    num_steps = max(math.ceil(math.log2((high - low) / math.log(_SIGMA_PRECISION))), 0)
    probes = block.draw(keys, block.settings.num_probes)
    exact = block.traced(x, rest)

    def step(_: Any, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = (low + high) / 2
        enough = change_rate(block, jnp.exp(middle), basis, probes, x, rest, exact) >= block.settings.target_rate
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    bracket = (jnp.full(block.lead, low, block.dtype), jnp.full(block.lead, high, block.dtype))
    low, high = jax.lax.fori_loop(0, num_steps, step, bracket)
    return jnp.exp((low + high) / 2)


def change_rate(
    block: Block, sigma: Any, basis: Any, probes: Any, x: Any, rest: Any, exact: list[jax.Array]
) -> jax.Array:
    """Returns the fraction of probes that change a result, `[*lead]`."""

    def changed(results: list[jax.Array]) -> jax.Array:
        moved = [
            _moved(block, r, e).any(axis=block.trailing(e))
            for r, e in zip(results, exact, strict=True)
            if not jnp.issubdtype(e.dtype, jax.dtypes.extended)
        ]
        return functools.reduce(jnp.logical_or, moved)

    return jnp.mean(block.evaluate(changed, sigma, basis, probes, x, rest), axis=0, dtype=block.dtype)


def _moved(block: Block, result: jax.Array, exact: jax.Array) -> jax.Array:
    """Returns which entries of a result have changed."""
    moved = result != exact
    if block.settings.tolerance > 0:  # with tolerance 0, this cast would round large integers
        distance = jnp.abs(result.astype(block.dtype) - exact.astype(block.dtype))
        moved &= ~(distance <= block.settings.tolerance)
    return moved & ~(jnp.isnan(result) & jnp.isnan(exact)) if jnp.issubdtype(exact.dtype, jnp.inexact) else moved
