"""What the adapters share: the import of optional libraries, and fitness that they can be told."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp


def import_peer(module: str, name: str) -> Any:
    """Imports an optional library.

    Raises:
        ModuleNotFoundError: If it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{name} is not installed: pip install es-zoo[peers]", name=error.name) from error


def finite_in_order(fitness: jax.Array) -> jax.Array:
    """Returns the fitness with infinite values replaced by finite ones, in the same order.

    The libraries take no infinite fitness. +inf becomes a value just above the largest finite one and -inf a value just
    below the smallest, so that a member that could not be evaluated still ranks behind all others.

    Args:
        fitness: `[population_size]`; NaN has become +inf.
    """
    limits = jnp.finfo(fitness.dtype)
    is_finite = jnp.isfinite(fitness)
    anything = jnp.any(is_finite)
    worst = jnp.where(anything, jnp.max(jnp.where(is_finite, fitness, -jnp.inf)), 0)
    best = jnp.where(anything, jnp.min(jnp.where(is_finite, fitness, jnp.inf)), 0)

    def gap(x: jax.Array) -> jax.Array:  # at least the distance to the next number, and no subnormal one
        return jnp.maximum(jnp.abs(x) * float(limits.eps), float(limits.tiny))

    above = jnp.minimum(worst + gap(worst), float(limits.max))
    below = jnp.maximum(best - gap(best), float(limits.min))
    return jnp.where(fitness == jnp.inf, above, jnp.where(fitness == -jnp.inf, below, fitness))
