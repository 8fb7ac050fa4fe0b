"""Truncated backpropagation through time: gradient descent on the surrogate gradient, window by window.

Each worker's gradient goes back to the start of its window and is cut there. It ignores how the solution led to the
inner state at that point, and so is biased for the loss of the episode.

Reference: Werbos 1990, "Backpropagation through time: what it does and how to do it", Proc. IEEE 78(10); Williams, Peng
1990, "An efficient gradient-based algorithm for on-line training of recurrent network trajectories".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Evaluation, Population, Solution, State, Surrogate
from zoo.strategies.gradient.base import DescentState
from zoo.strategies.gradient.workers import WorkerStrategy


class TBPTTState(NamedTuple):
    """State of `TBPTT`."""

    descent: DescentState
    gradient: Solution


class TBPTT(WorkerStrategy):
    """Truncated BPTT: backpropagation through each window; the gradient is cut at the window's start, hence biased.

    Descends the problem's surrogate gradient, averaged over the workers. On a problem without inner episodes it is
    plain gradient descent.
    """

    def takes_surrogate(self, state: State) -> bool:
        """Returns True."""
        return True

    def estimate(self, state: TBPTTState, population: Population, evaluation: Evaluation) -> Solution:
        """Returns the surrogate gradient that `ask` took."""
        return state.gradient

    def _init(self, key: jax.Array, solution: Solution) -> TBPTTState:
        return TBPTTState(self.start(solution), jax.tree.map(jnp.zeros_like, solution))

    def _ask(self, key: jax.Array, state: TBPTTState, surrogate: Surrogate | None) -> tuple[Population, TBPTTState]:
        population, state = super()._ask(key, state, surrogate)
        gradient = surrogate(state.descent.mean)  # pyright: ignore[reportOptionalCall] - `ask` checked it
        return population, state._replace(gradient=gradient)
