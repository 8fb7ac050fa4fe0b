"""BIPOP: restarts in turn with a population size that doubles, and with small populations and step sizes.

Reference: Hansen 2009, "Benchmarking a BI-Population CMA-ES on the BBOB-2009 Function Testbed", GECCO, section 2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.strategies.wrappers.restart import Restart, RestartState


class Schedule(NamedTuple):
    """What decides about the next run."""

    large_rung: jax.Array  # [] population size of the last large run
    large_evaluations: jax.Array  # [] spent in large runs
    small_evaluations: jax.Array  # [] spent in small runs
    last_large_evaluations: jax.Array  # [] of the last large run
    is_small: jax.Array  # [] whether the current run is a small one
    is_first: jax.Array  # [] whether it is the first of all


class BIPOP(Restart):
    """Restarts any strategy, with two regimes that get equal shares of the evaluations.

    The large regime doubles the population size at each of its restarts. The small one takes sizes between the first
    and half the current large one, and a step size reduced by up to 100: 2^((k - 1) U^2) times the first size if the
    large one has doubled k times, rounded to a power of two, and 10^(-2 U') times sigma, with U and U' uniform; such a
    run gets half the evaluations of the last large one. See `Restart` for the settings, and for what blocks are.

    References:
        Hansen 2009, GECCO.
    """

    def _first_schedule(self) -> Schedule:
        dtypes = (jnp.int32, jnp.float32, jnp.float32, jnp.float32, bool)
        return Schedule(*(jnp.zeros((), dtype) for dtype in dtypes), is_first=jnp.ones((), bool))

    def _next_run(self, key: jax.Array, state: RestartState) -> tuple[jax.Array, jax.Array, jax.Array, Schedule]:
        old = state.schedule
        spent = state.run.num_evaluations.astype(old.large_evaluations.dtype)
        is_large = ~old.is_small & ~old.is_first  # the first run counts for neither
        large = old.large_evaluations + jnp.where(is_large, spent, 0)
        small = old.small_evaluations + jnp.where(old.is_small, spent, 0)
        last_large = jnp.where(old.is_small, old.last_large_evaluations, spent)

        is_small = small < large
        large_rung = jnp.where(is_small, old.large_rung, jnp.minimum(old.large_rung + 1, self.max_doublings))
        for_size, for_sigma = jax.random.uniform(key, (2,))
        exponent = jnp.maximum(large_rung - 1, 0).astype(for_size.dtype) * for_size**2
        rung = jnp.where(is_small, jnp.round(exponent).astype(jnp.int32), large_rung)
        sigma_factor = jnp.where(is_small, 10 ** (-2 * for_sigma), 1)
        budget = jnp.where(is_small, last_large / 2, jnp.inf)
        schedule = Schedule(large_rung, large, small, last_large, is_small, jnp.zeros((), bool))
        return rung, sigma_factor, budget, schedule
