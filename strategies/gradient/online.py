"""What online evolution strategies share: perturbations that outlive a window of an unrolled computation.

An inner episode of T steps is evaluated W steps at a time, the mean updated in between. A pair keeps its two inner
states, and its perturbation for `noise_period` windows. The estimate of a window weighs its difference of losses by the
sum of all perturbations of the episode so far, since all of them led to the states that the window started from:

    g = (L+ - L-) / 2 * sum_j z_j / sigma_j,    averaged over the pairs,

z_j the standard normal and sigma_j the standard deviation of the episode's j-th perturbation, and L the window's
fitness as the problem scales it (Li et al. 2023, arXiv 2304.12180, there for a constant sigma). It is unbiased
for the loss smoothed by an independent perturbation per block of `noise_period` windows, at a fixed mean.
"""

import abc
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from strategies.gradient.base import GradientStrategy
from strategies.noise import antithetic_pairs, normal_like, renew_rows, weighted_sum
from strategies.shaping import Shaping
from zoo import static
from zoo.strategy import Evaluation, Population, Solution, Surrogate, repeat_groups


class OnlineState(NamedTuple):
    """State of an `OnlineStrategy`."""

    mean: Solution
    optimizer_state: optax.OptState
    generation: jax.Array  # []
    age: jax.Array  # [num_pairs] windows since the pair's episode began
    sigma: jax.Array  # [num_pairs] with which its perturbation was drawn
    perturbation: Solution | None  # [num_pairs, ...] standard normal; None if it is drawn anew in every window
    earlier: Solution | None  # [num_pairs, ...] sum of z_j / sigma_j before the present one; None if there are none


class OnlineStrategy(GradientStrategy):
    """Base of the online strategies: antithetic pairs i and i + population_size / 2, each its own worker.

    A subclass says for how many windows a perturbation is held.

    Attributes:
        shaping: As in `GradientStrategy`, but off by default: anything but `"none"` makes the estimate biased, and
            compares workers that are at different places of their episodes.
    """

    shaping: str | Shaping = static(default="none")

    remembers_noise = True

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        self._check_pairs()

    @property
    @abc.abstractmethod
    def _noise_period(self) -> int | None:
        """Windows between two draws of a pair's perturbation; `None`: one for the whole episode."""

    @property
    def groups(self) -> np.ndarray:
        """The antithetic pairs: each has its own data, start and phase."""
        return repeat_groups(self._fixed_size, 2)

    def estimate(self, state: OnlineState, population: Population, evaluation: Evaluation) -> Solution:
        """Returns the gradient estimate; see the top of this file.

        Args:
            state: The state that `ask` returned.
            population: The population that was evaluated.
            evaluation: Its evaluation.
        """
        weights = self._antithetic_weights(evaluation.fitness)
        num_pairs = state.age.shape[0]
        # As in open_es the mean drops out, here from sum_i w_i (x_i - mean) / sigma_i^2.
        scale = 1 / (2 * num_pairs * jnp.tile(state.sigma, 2) ** 2)
        estimate = weighted_sum(weights * scale, population)
        if state.earlier is None:
            return estimate
        earlier = weighted_sum(weights[:num_pairs] / num_pairs, state.earlier)
        return jax.tree.map(jnp.add, estimate, earlier)

    def _init(self, key: jax.Array, solution: Solution) -> OnlineState:
        num_pairs = self._num_members(solution) // 2

        def zeros() -> Solution:  # anew for each: a loop may donate the state, and no array twice
            return jax.tree.map(lambda x: jnp.zeros((num_pairs, *x.shape), x.dtype), solution)

        state = OnlineState(
            mean=solution,
            optimizer_state=self._transformation.init(solution),
            generation=jnp.zeros((), jnp.int32),
            age=jnp.zeros(num_pairs, jnp.int32),
            sigma=jnp.zeros(num_pairs, float),
            perturbation=None if self._noise_period == 1 else zeros(),
            earlier=None if self._noise_period is None else zeros(),
        )
        return state._replace(sigma=jnp.full_like(state.sigma, self.sigma_at(state)))

    def _ask(self, key: jax.Array, state: OnlineState, surrogate: Surrogate | None) -> tuple[Population, OnlineState]:
        is_new = self._starts_block(state.age)
        sigma = jnp.where(is_new, self.sigma_at(state).astype(state.sigma.dtype), state.sigma)
        if state.perturbation is None:
            noise = normal_like(key, state.mean, num_samples=state.age.shape[0])
            return antithetic_pairs(state.mean, sigma, noise), state._replace(sigma=sigma)
        noise = renew_rows(key, state.perturbation, is_new)
        return antithetic_pairs(state.mean, sigma, noise), state._replace(sigma=sigma, perturbation=noise)

    def _tell(self, state: OnlineState, population: Population, evaluation: Evaluation) -> OnlineState:
        num_pairs = state.age.shape[0]
        done = evaluation.done[:num_pairs] | evaluation.done[num_pairs:]
        age = state.age + 1
        told = super()._tell(state, population, evaluation)._replace(age=jnp.where(done, 0, age))
        if state.earlier is None:
            return told
        # The perturbation joins the earlier ones when the next is due, and all are forgotten with the episode.
        joins = self._starts_block(age) / (2 * state.sigma**2)

        def accumulate(earlier: jax.Array, x: jax.Array) -> jax.Array:
            keep, add = (c.reshape(num_pairs, *[1] * (x.ndim - 1)).astype(x.dtype) for c in (~done, joins))
            return keep * (earlier + add * (x[:num_pairs] - x[num_pairs:]))

        return told._replace(earlier=jax.tree.map(accumulate, state.earlier, population))

    def _starts_block(self, age: jax.Array) -> jax.Array:
        """Whether a new perturbation is due."""
        return age == 0 if self._noise_period is None else age % self._noise_period == 0
