"""BIPOP: restarts that alternate between populations that double, and small populations with small step sizes.

Whenever a run has converged or stalled, the next one is of the regime that has spent fewer evaluations so far. The
large regime doubles its population size. The small regime draws a population size and a step size at random.

Reference: Hansen 2009, "Benchmarking a BI-Population CMA-ES on the BBOB-2009 Function Testbed", GECCO, doi
10.1145/1570256.1570333, section 2. Small population sizes are rounded to powers of two times the first one, because
sizes are fixed when the program is compiled.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.strategies.wrappers.restart import Restart, RestartState


class Schedule(NamedTuple):
    """What decides about the next run."""

    large_rung: jax.Array  # [] of the last large run: its population size is the first one times 2^large_rung
    large_evaluations: jax.Array  # [] spent in large runs
    small_evaluations: jax.Array  # [] spent in small runs
    last_large_evaluations: jax.Array  # [] of the last large run
    is_small: jax.Array  # [] whether the current run is a small one
    is_first: jax.Array  # [] whether it is the first of all


class BIPOP(Restart):
    """Restarts any strategy, with two regimes that get equal shares of the evaluations.

    The large regime doubles the population size at each of its restarts. The small regime has a population size between
    the first and half the current large one, and a step size that is up to 100 times smaller. If the large regime has
    doubled k times, the size is 2^((k - 1) U^2) times the first, rounded to a power of two, and the step size is 10^(-2
    U') times sigma, with U and U' uniform in [0, 1]. A small run gets half the evaluations of the last large one. See
    `Restart` for the settings, and for blocks.

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
