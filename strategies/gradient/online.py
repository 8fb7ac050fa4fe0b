"""What online evolution strategies share: perturbations that last longer than a window of an unrolled computation.

An inner episode of T steps is evaluated W steps at a time, and the mean is updated after each window. An antithetic
pair keeps its two inner states, and it keeps its perturbation for `noise_period` windows. All perturbations of the
episode so far led to the inner states at the start of a window. So the estimate multiplies the window's difference of
losses by their sum:

    g = (L+ - L-) / 2 * sum_j z_j / sigma_j,    averaged over the pairs.

Here z_j is the standard normal and sigma_j the standard deviation of the episode's j-th perturbation, and L is the
window's fitness as the problem scales it (Li et al. 2023, arXiv 2304.12180, for a constant sigma). At a fixed mean the
estimate is unbiased for the loss smoothed by an independent perturbation in each block of `noise_period` windows.
"""

import abc
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import (
    Evaluation,
    Groups,
    Population,
    Solution,
    Surrogate,
    apply_mask,
    in_single,
    sharding,
    static,
    weighted_sum,
)
from zoo.core.noise import KeyWords, renew_rows, row_numbers
from zoo.strategies.batching import any_in_batch
from zoo.strategies.gradient.base import CANNOT_RESTART, DescentState, GradientStrategy, antithetic
from zoo.strategies.perturbations.base import ImplicitPerturbation, Noise
from zoo.strategies.shaping import Shaping


class Blocks(NamedTuple):
    """The perturbations of the pairs' episodes as keys, where populations are not stored."""

    keys: KeyWords  # words [max_blocks, num_pairs, ...]
    sigma: jax.Array  # [max_blocks, num_pairs] standard deviations that they were drawn with


class OnlineState(NamedTuple):
    """State of an `OnlineStrategy`."""

    descent: DescentState
    age: jax.Array  # [num_pairs] windows since the pair's episode began
    sigma: jax.Array  # [num_pairs] standard deviation that its perturbation was drawn with
    perturbation: Solution | Blocks | None  # [num_pairs, ...] standard normal; None if every window draws anew
    earlier: Solution | None  # [num_pairs, ...] sum of z_j / sigma_j before the present one; None if not stored


class OnlineStrategy(GradientStrategy):
    """Base of the online strategies: antithetic pairs i and i + population_size / 2, each a worker of its own.

    A subclass says for how many windows a perturbation is held.

    If populations are not stored (`perturbation=Seeded()` or `LowRank()`), the sums of perturbations are not stored
    either. The key of every perturbation of an episode is kept, and the noise is drawn again for each estimate. To
    bound the number of keys, the last of `perturbation.max_blocks` perturbations is held to the end of the episode. The
    estimate remains unbiased, for the loss smoothed by that number of independent perturbations.

    Attributes:
        shaping: Fitness shaping as in `open_es`, by default `"none"`. Any other shaping makes the estimate biased, and
            compares workers that are at different places of their episodes.
    """

    shaping: str | Shaping = static(default="none")

    @property
    def follows_population(self) -> bool:
        """False: the next window uses the perturbation that `ask` drew."""
        return False

    @property
    def cannot_restart(self) -> str:
        """Why it cannot restart: a pair continues from its own inner states."""
        return CANNOT_RESTART

    @property
    @abc.abstractmethod
    def _noise_period(self) -> int | None:
        """Windows between two draws of a pair's perturbation. With `None`, one lasts for the whole episode."""

    @property
    def groups(self) -> Groups:
        """The groups: each antithetic pair has its own data, start and phase."""
        return Groups.of(self._fixed_size, 2)

    def sigma_of_members(self, state: OnlineState) -> jax.Array:
        """Returns, for each member, the sigma that its pair's perturbation was drawn with."""
        return jnp.tile(state.sigma, 2)

    def estimate(self, state: OnlineState, population: Population, evaluation: Evaluation) -> Solution:
        """Returns the gradient estimate; see the top of this file.

        Args:
            state: The state that `ask` returned.
            population: The population that was evaluated.
            evaluation: Its evaluation.
        """
        estimate = super().estimate(state, population, evaluation)
        num_pairs = len(state.age)
        of_pairs = antithetic(self.shape(evaluation.fitness))[:num_pairs] / num_pairs
        if isinstance(state.perturbation, Blocks) and self._noise_period is not None:
            earlier = self._sum_blocks(state, of_pairs)
            earlier = apply_mask(getattr(population, "mask", None), earlier)
        elif state.earlier is not None:
            earlier = weighted_sum(of_pairs, state.earlier)
        else:
            return estimate
        return jax.tree.map(jnp.add, estimate, earlier)

    def _init(self, key: jax.Array, solution: Solution) -> OnlineState:
        num_pairs = self._num_members(solution) // 2

        def zeros(like: Solution) -> Solution:  # new arrays: a loop may donate the state, but no array twice
            return jax.tree.map(lambda x: jnp.zeros((num_pairs, *x.shape), x.dtype), like)

        state = OnlineState(
            descent=self.start(solution),
            age=jnp.zeros(num_pairs, jnp.int32),
            sigma=jnp.zeros(num_pairs, float),
            perturbation=None,
            earlier=None,
        )
        sigma = jnp.full_like(state.sigma, self.sigma_at(state))
        if self._max_blocks is not None:
            size, keys = (self._max_blocks, num_pairs), KeyWords.of(key)
            keys = keys.replace(words=jnp.broadcast_to(keys.words, (*size, *keys.words.shape)))
            sigmas = jnp.broadcast_to(sigma, size)
            return state._replace(sigma=sigma, perturbation=Blocks(keys, sigmas))
        return state._replace(
            sigma=sigma,
            perturbation=None if self._noise_period == 1 else zeros(solution),
            earlier=None if self._noise_period is None else zeros(in_single(solution)),
        )

    def _ask(self, key: jax.Array, state: OnlineState, surrogate: Surrogate | None) -> tuple[Population, OnlineState]:
        is_new = self._starts_block(state.age)
        sigma = jnp.where(is_new, self.sigma_at(state).astype(state.sigma.dtype), state.sigma)
        num_pairs = state.age.shape[0]
        if isinstance(state.perturbation, Blocks):
            here = (self._block(state.age), jnp.arange(num_pairs, dtype=jnp.int32))
            keys = state.perturbation.keys
            words = jnp.where(is_new[:, None], KeyWords.of(key).words, keys.words[here])
            blocks = Blocks(
                keys.replace(words=keys.words.at[here].set(words)), state.perturbation.sigma.at[here].set(sigma)
            )
            noise = self._draw_rows(state.descent.mean, keys.replace(words=words), row_numbers(num_pairs))
            state = state._replace(perturbation=blocks)
        elif state.perturbation is None:
            noise = self.draw(key, state)
        else:
            noise = renew_rows(key, state.perturbation, is_new)
            state = state._replace(perturbation=noise)
        return self.perturb(state, noise, sigma), state._replace(sigma=sigma)

    def _tell(self, state: OnlineState, population: Population, evaluation: Evaluation) -> OnlineState:
        num_pairs = state.age.shape[0]
        done = evaluation.done[:num_pairs] | evaluation.done[num_pairs:]
        age = state.age + 1
        told = super()._tell(state, population, evaluation)._replace(age=jnp.where(done, 0, age))
        if state.earlier is None:
            return told
        # A perturbation is added to the earlier ones when the next one is due. The sum starts again with each episode.
        joins = jnp.where(self._starts_block(age), 1 / (2 * state.sigma**2), 0)

        def accumulate(earlier: jax.Array, x: jax.Array) -> jax.Array:
            keep, add = (c.reshape(num_pairs, *[1] * (x.ndim - 1)).astype(x.dtype) for c in (~done, joins))
            return keep * (earlier + add * (x[:num_pairs] - x[num_pairs:]))

        return told._replace(earlier=jax.tree.map(accumulate, state.earlier, in_single(population)))

    @property
    def _max_blocks(self) -> int | None:
        """How many perturbations of an episode are remembered by their keys. With `None`, populations are stored."""
        if not isinstance(self._form, ImplicitPerturbation):
            return None
        return 1 if self._noise_period is None else self._form.max_blocks

    def _block(self, age: jax.Array) -> jax.Array:
        """Returns for each pair the index of its perturbation in the remembered ones of its episode."""
        if self._noise_period is None or self._max_blocks is None:
            return jnp.zeros_like(age)
        return jnp.minimum(age // self._noise_period, self._max_blocks - 1)

    def _starts_block(self, age: jax.Array) -> jax.Array:
        """Returns for each pair whether a new perturbation is due."""
        if self._noise_period is None:
            return age == 0
        is_due = age % self._noise_period == 0
        return is_due if self._max_blocks is None else is_due & (age < self._noise_period * self._max_blocks)

    def _draw_rows(self, mean: Solution, keys: KeyWords, rows: jax.Array) -> Noise:
        return self._form.draw_rows(keys.key, mean, rows)  # pyright: ignore[reportAttributeAccessIssue]

    def _sum_blocks(self, state: OnlineState, weights: jax.Array) -> Solution:
        """Returns the weighted sum over the pairs of z_j / sigma_j before the present block; draws the z_j again."""
        blocks: Blocks = state.perturbation  # pyright: ignore[reportAssignmentType]
        is_earlier = jnp.arange(len(blocks.sigma), dtype=jnp.int32)[:, None] < self._block(state.age)[None]
        scaled = jnp.where(is_earlier, weights[None] / blocks.sigma, 0)

        add_up = functools.partial(_sum_blocks, self._form, blocks.keys.impl, state.descent.mean)
        if sharding.num_shards() > 1:
            add_up = sharding.on_shards(add_up, axes=(1, 1, 0), out_axis=None)
        return add_up(blocks.keys.words, scaled, row_numbers(len(state.age)))


@functools.partial(jax.jit, static_argnums=(0, 1))  # or a loop without jit would compile it in every call
def _sum_blocks(
    form: ImplicitPerturbation, impl: str, mean: Solution, words: jax.Array, weights: jax.Array, rows: jax.Array
) -> Solution:
    def add(total: Solution, block: tuple[jax.Array, jax.Array]) -> tuple[Solution, None]:
        words, weights = block

        def added() -> Solution:
            noise = form.draw_rows(KeyWords(words=words, impl=impl).key, mean, rows)
            return jax.tree.map(jnp.add, total, in_single(noise.weighted_sum(weights)))

        return jax.lax.cond(any_in_batch(jnp.any(weights != 0)), added, lambda: total), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), in_single(mean))
    return jax.lax.scan(add, zeros, (words, weights))[0]
