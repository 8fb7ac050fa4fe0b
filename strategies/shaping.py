"""Fitness shaping: what a strategy weighs its members by. All of it is robust to NaN and infinite fitness."""

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

# Up to here all pairs are compared (one fused kernel); above, sorting is cheaper.
_MAX_PAIRWISE = 512


def ranks(fitness: jax.Array) -> jax.Array:
    """Returns ranks from 0 (lowest, best) to population_size - 1; equal values share their average rank.

    Args:
        fitness: `[population_size]`; NaN ranks with +inf, last.
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
    """Returns ranks scaled to [-0.5, 0.5] (Salimans et al. 2017, section 2.1); they sum to zero."""
    return ranks(fitness) / max(fitness.shape[0] - 1, 1) - 0.5


def standardized(fitness: jax.Array) -> jax.Array:
    """Returns finite fitness with mean zero and standard deviation one (zero if all values are equal)."""
    fitness = finite(fitness)
    fitness = _near_one(fitness)  # or sums would overflow
    deviation = _near_one(fitness - jnp.mean(fitness))  # or squares would, or vanish
    # The mean of equal values is not always that value, and rounding would be divided by itself. Its own mean is exact.
    deviation = deviation - jnp.mean(deviation)
    std = jnp.std(deviation)
    return jnp.where(std > 0, deviation / jnp.where(std > 0, std, 1), 0)


def _near_one(x: jax.Array) -> jax.Array:
    """Returns an array times a power of two, which rounds nothing, so that its largest entry is near one."""
    _, exponent = jnp.frexp(jnp.max(jnp.abs(x)))
    return jnp.ldexp(x, -exponent)


def finite(fitness: jax.Array) -> jax.Array:
    """Returns the fitness with what is not finite replaced: NaN and +inf by the worst finite value, -inf by the best.

    If nothing is finite, all values become zero, and the update with them.
    """
    is_finite = jnp.isfinite(fitness)
    worst = jnp.max(jnp.where(is_finite, fitness, -jnp.inf))
    best = jnp.min(jnp.where(is_finite, fitness, jnp.inf))
    replaced = jnp.where(is_finite, fitness, jnp.where(fitness == -jnp.inf, best, worst))
    return jnp.where(jnp.any(is_finite), replaced, 0)


def utilities(fitness: jax.Array) -> jax.Array:
    """Returns rank-based utilities, `[population_size]`, that sum to zero (Wierstra et al. 2014, section 3.1).

    Equal fitness gets equal utility: the utility at the average rank would not keep the sum, so the utilities of tied
    members are averaged.
    """
    size = fitness.shape[0]
    table = jnp.maximum(0.0, math.log(size / 2 + 1) - jnp.log(jnp.arange(1, size + 1, dtype=fitness.dtype)))
    table = table / jnp.sum(table) - 1 / size
    return _average_over_ties(table, fitness)


def _average_over_ties(table: jax.Array, fitness: jax.Array) -> jax.Array:
    """Returns each member's entry of a table by rank; tied members get the average of theirs.

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
    """Returns the fitness as it is, but what is not finite, or too large to be squared, replaced as by `finite`.

    Penalties such as 1e30 are no larger than the worst fitness beside them then. They would end every update: its
    squares are not finite. Where all fitness is that large, it is the scale of the problem, and is kept.
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
    """Returns a shaping function by name, or the given function.

    Raises:
        ValueError: If there is no shaping of that name.
    """
    if callable(shaping):
        return shaping
    if shaping not in SHAPINGS:
        raise ValueError(f"shaping must be one of {', '.join(SHAPINGS)} or a function, got {shaping!r}.")
    return SHAPINGS[shaping]
