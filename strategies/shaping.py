"""Fitness shaping: turns fitness into weights of members. Every function accepts NaN and infinite fitness."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from zoo.core.promotion import promoted

__all__ = [
    "SHAPINGS",
    "Shaping",
    "centered_ranks",
    "finite",
    "get_shaping",
    "ranks",
    "standardized",
    "unshaped",
    "utilities",
]

Shaping = Callable[[jax.Array], jax.Array]

# The largest population whose ranks come from comparing all pairs (one fused kernel). Above it, sorting is cheaper.
_MAX_PAIRWISE = 512


def ranks(fitness: jax.Array) -> jax.Array:
    """Returns ranks from 0 (lowest fitness, best) to population_size - 1; equal values share their average rank.

    Args:
        fitness: `[population_size]`; NaN ranks last, with +inf.
    """
    fitness = jnp.where(jnp.isnan(fitness), jnp.inf, fitness)
    size = fitness.shape[0]
    if size <= _MAX_PAIRWISE:
        below = jnp.sum(fitness[:, None] > fitness[None, :], axis=1)
        not_above = jnp.sum(fitness[:, None] >= fitness[None, :], axis=1)
    else:
        ordered = jnp.sort(fitness)
        below = jnp.searchsorted(ordered, fitness, side="left")
        not_above = jnp.searchsorted(ordered, fitness, side="right")
    return (below + not_above - 1).astype(fitness.dtype) / 2


def centered_ranks(fitness: jax.Array) -> jax.Array:
    """Returns ranks scaled to [-0.5, 0.5], which sum to zero (Salimans et al. 2017, section 2.1)."""
    return ranks(fitness) / max(fitness.shape[0] - 1, 1) - 0.5


def standardized(fitness: jax.Array) -> jax.Array:
    """Returns finite fitness with mean zero and standard deviation one (zeros if all values are equal)."""
    fitness = finite(fitness)
    fitness = _near_one(fitness)  # or the sum could overflow
    deviation = _near_one(fitness - jnp.mean(fitness))  # or squares could overflow or vanish
    # The mean of equal values may differ from that value by rounding. The remainders are then equal too, and their mean
    # is exact. Subtracting it gives exact zeros, so that rounding is not divided by itself.
    deviation = deviation - jnp.mean(deviation)
    std = jnp.std(deviation)
    return jnp.where(std > 0, deviation / jnp.where(std > 0, std, 1), 0)


def _near_one(x: jax.Array) -> jax.Array:
    """Returns the array times a power of two that brings its largest entry near one. This rounds nothing."""
    _, exponent = jnp.frexp(jnp.max(jnp.abs(x)))
    return jnp.ldexp(x, -exponent)


def finite(fitness: jax.Array) -> jax.Array:
    """Returns the fitness made finite: NaN and +inf become the worst finite value, -inf the best.

    If no value is finite, returns zeros, so that the update is zero too.
    """
    is_finite = jnp.isfinite(fitness)
    worst = jnp.max(jnp.where(is_finite, fitness, -jnp.inf))
    best = jnp.min(jnp.where(is_finite, fitness, jnp.inf))
    replaced = jnp.where(is_finite, fitness, jnp.where(fitness == -jnp.inf, best, worst))
    return jnp.where(jnp.any(is_finite), replaced, 0)


def utilities(fitness: jax.Array) -> jax.Array:
    """Returns rank-based utilities, `[population_size]`, which sum to zero (Wierstra et al. 2014, section 3.1).

    Tied members get the average of their utilities. (The utility at their average rank would change the sum.)
    """
    size = fitness.shape[0]
    table = jnp.maximum(0.0, math.log(size / 2 + 1) - jnp.log(jnp.arange(1, size + 1, dtype=fitness.dtype)))
    table = table / jnp.sum(table) - 1 / size
    return _average_over_ties(table, fitness)


def _average_over_ties(table: jax.Array, fitness: jax.Array) -> jax.Array:
    """Returns each member's entry of a table ordered by rank; tied members get the average of their entries.

    Args:
        table: `[population_size]` by rank, best first.
        fitness: `[population_size]`; NaN ranks last.
    """
    average = ranks(fitness)
    cumulative = jnp.concatenate([jnp.zeros(1, table.dtype), jnp.cumsum(table)])
    clean = jnp.where(jnp.isnan(fitness), jnp.inf, fitness)
    num_tied = jnp.sum(clean[:, None] == clean[None, :], axis=1, dtype=jnp.int32)
    first = jnp.round(jnp.subtract(*promoted(average, (num_tied - 1) / 2))).astype(jnp.int32)
    return (cumulative[first + num_tied] - cumulative[first]) / num_tied.astype(table.dtype)


def unshaped(fitness: jax.Array) -> jax.Array:
    """Returns the fitness, with values that are not finite or too large to square replaced by `finite`.

    A penalty such as 1e30 then counts as the worst of the other fitness values. Its square is not finite, which would
    spoil every update. If all values are that large, that is the scale of the problem, and they are kept.
    """
    limit = (float(jnp.finfo(fitness.dtype).max) / fitness.shape[0]) ** 0.5
    is_small = jnp.abs(fitness) < limit
    return finite(jnp.where(is_small | ~jnp.any(is_small), fitness, jnp.copysign(jnp.inf, fitness)))


SHAPINGS: dict[str, Shaping] = {
    "centered_ranks": centered_ranks,
    "standardized": standardized,
    "none": unshaped,
}


def get_shaping(shaping: str | Shaping) -> Shaping:
    """Returns a shaping function by its name; returns a given function unchanged.

    Raises:
        ValueError: If no shaping has that name.
    """
    if callable(shaping):
        return shaping
    if shaping not in SHAPINGS:
        raise ValueError(f"shaping must be one of {', '.join(SHAPINGS)} or a function, got {shaping!r}.")
    return SHAPINGS[shaping]
