"""What strategies share whose members are workers: all are at the mean, and each is on an episode of its own."""

import jax
import jax.numpy as jnp

from zoo.core import Groups, Population, Solution, State, Surrogate, repeat_solution, static
from zoo.strategies.gradient.base import CANNOT_RESTART, DescentStrategy


class WorkerStrategy(DescentStrategy):
    """Base of strategies that descend the mean of their workers' derivatives.

    Attributes:
        population_size: Number of workers, at least 1. All are at the mean; each has its own data, start and phase. The
            budget counts the steps that are unrolled, whatever their derivatives cost.
    """

    population_size: int | None = static(default=16, at_least=1)

    @property
    def cannot_restart(self) -> str:
        """Why it cannot restart: members continue from inner states."""
        return CANNOT_RESTART

    @property
    def groups(self) -> Groups:
        """The groups: each worker by itself."""
        return Groups.of(self._fixed_size, 1)

    def std(self, state: State) -> Solution:
        """Returns zero for every parameter: nothing is sampled."""
        return jax.tree.map(jnp.zeros_like, state.descent.mean)

    def _init(self, key: jax.Array, solution: Solution) -> State:
        return self.start(solution)

    def _ask(self, key: jax.Array, state: State, surrogate: Surrogate | None) -> tuple[Population, State]:
        mean = state.descent.mean
        return repeat_solution(mean, self._num_members(mean)), state
