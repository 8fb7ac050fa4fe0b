"""Truncated backpropagation through time: gradient descent on the surrogate gradient, window by window.

Reference: Werbos 1990, "Backpropagation through time: what it does and how to do it", Proc. IEEE 78(10); Williams,
Peng 1990, "An efficient gradient-based algorithm for on-line training of recurrent network trajectories".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from zoo.core import Evaluation, Groups, Population, Solution, State, Surrogate, repeat_solution, static
from zoo.strategies.gradient.base import CANNOT_RESTART, DescentState, DescentStrategy
from zoo.strategies.gradient.optimizers import skip_non_finite


class TBPTTState(NamedTuple):
    """State of `TBPTT`."""

    descent: DescentState
    gradient: Solution


class TBPTT(DescentStrategy):
    """Truncated BPTT: backpropagation through each window, the gradient cut at its start; biased.

    Descends the problem's surrogate gradient, so on a problem without inner episodes it is plain gradient descent.
    Where the gradient is not finite the step is left out.

    Attributes:
        population_size: Workers, all at the mean and each with its own data, start and phase; their gradients are
            averaged. Steps are counted as they are unrolled, the backward pass apart.
    """

    population_size: int | None = static(default=16, at_least=1)

    @property
    def cannot_restart(self) -> str:
        """Members go on from inner states."""
        return CANNOT_RESTART

    def takes_surrogate(self, state: State) -> bool:
        """Returns True."""
        return True

    @property
    def transformation(self) -> optax.GradientTransformation:
        """The optimizer, without steps along gradients that are not finite."""
        return skip_non_finite(super().transformation)

    @property
    def groups(self) -> Groups:
        """Each worker by itself."""
        return Groups.of(self._fixed_size, 1)

    def std(self, state: TBPTTState) -> Solution:
        """Returns zero: nothing is sampled."""
        return jax.tree.map(jnp.zeros_like, state.descent.mean)

    def estimate(self, state: TBPTTState, population: Population, evaluation: Evaluation) -> Solution:
        """Returns the surrogate gradient that `ask` took."""
        return state.gradient

    def _init(self, key: jax.Array, solution: Solution) -> TBPTTState:
        return TBPTTState(self.start(solution), jax.tree.map(jnp.zeros_like, solution))

    def _ask(self, key: jax.Array, state: TBPTTState, surrogate: Surrogate | None) -> tuple[Population, TBPTTState]:
        mean = state.descent.mean
        gradient = surrogate(mean)  # pyright: ignore[reportOptionalCall] - `ask` saw to it that there is one
        return repeat_solution(mean, self._num_members(mean)), state._replace(gradient=gradient)
