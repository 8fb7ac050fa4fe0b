"""Lottery tickets: rounds of training, pruning and rewinding to the initial solution, by any strategy.

In each round a base strategy trains the weights that are left. Then the weights with the lowest score are pruned, the
others go back to their initial values, and the base starts anew.

Reference: Lange, Sprekeler 2023, "Lottery Tickets in Evolutionary Optimization: On Sparse Backpropagation-Free
Trainability", arXiv 2306.00045, Algorithm 1. This is iterative magnitude pruning (Frankle, Carbin 2019, arXiv
1803.03635) with the signal-to-noise ratio |mean| / std of the search distribution in place of the magnitude.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import (
    Evaluation,
    Mask,
    Population,
    Solution,
    Surrogate,
    as_patterns,
    full_mask,
    keep_best,
    leaf,
    num_surviving,
    number,
    prunable_leaves,
    static,
    uniform_like,
)
from zoo.strategies.batching import any_in_batch
from zoo.strategies.wrappers.base import Wrapper
from zoo.strategies.wrappers.masked import Masked, MaskedState


class LotteryState(NamedTuple):
    """State of `Lottery`."""

    base: MaskedState  # the base's state in this round
    mask: Mask  # true for the weights that are left in this round
    solution: Solution  # the initial solution, not masked
    generation: jax.Array  # [] finished generations of this round
    round: jax.Array  # [] finished rounds: how often it was pruned


class Lottery(Wrapper):
    """Trains, prunes the weights with the lowest score, rewinds the others to their initial values, and starts over.

    A round ends after `generations_per_round` generations, when the next population is asked for. The weights that are
    left are scored over all leaves at once, and the fraction `prune_fraction` of them is gone for good (rounded; the
    last weight stays). The mean goes back to the initial solution, and the base starts anew. So after the last `tell`
    of a round, `mean` is the trained solution, and `state.mask` says which weights it has; `ticket` returns both. All
    of it works inside a `scan`. What the problem gathers, such as observation statistics, is not rewound.

    Attributes:
        base: The strategy that trains: its id, a dictionary of its id and settings, or a strategy.
        generations_per_round: Generations between two prunings, at least 1.
        prune_fraction: Fraction of the remaining weights that a pruning removes, between 0 and 1.
        score: What decides. `"snr"` is |mean| / std of the search distribution. If the base has one standard deviation
            for all weights, it ranks as the magnitude does; weights that the base does not sample go last.
            `"magnitude"` is |mean|; `"random"` is a random order.
        exclude: Leaves that are never pruned: regular expressions that are searched for in their paths, such as
            `"Dense_2"`. Biases are never pruned: leaves named `bias` or `scale`, and, if other leaves are left, leaves
            with fewer than two axes.
        weight_decay: Fraction of the mean that is subtracted after each generation, between 0 and 1. The paper's is
            1e-4.

    References:
        Lange, Sprekeler 2023, arXiv 2306.00045.
    """

    base: Any = leaf(default="snes")
    generations_per_round: int = static(default=300, at_least=1)
    prune_fraction: float = number(default=0.2, at_least=0, at_most=1)
    score: Literal["snr", "magnitude", "random"] = static(default="snr")
    exclude: str | tuple[str, ...] = static(default=())
    weight_decay: float = number(default=0.0, at_least=0, at_most=1)

    def __post_init__(self) -> None:
        """Checks the settings, and makes the base."""
        super().__post_init__()
        object.__setattr__(self, "exclude", as_patterns(self.exclude, "Lottery.exclude"))

    @property
    def restarts(self) -> bool:
        """True: it starts over after each round."""
        return True

    def mean(self, state: LotteryState) -> Solution:
        """Returns the mean of this round, zero where pruned."""
        return self._masked(state.mask).mean(state.base)

    def std(self, state: LotteryState) -> Solution:
        """Returns the standard deviations of this round, zero where pruned."""
        return self._masked(state.mask).std(state.base)

    def condition_number(self, state: LotteryState) -> jax.Array:
        """Returns the condition number of the base."""
        return self._masked(state.mask).condition_number(state.base)

    def _masked(self, mask: Mask) -> Masked:
        return Masked(base=self.base, mask=mask)

    def takes_surrogate(self, state: LotteryState) -> bool:
        """Returns whether the base takes a surrogate gradient."""
        return self._masked(state.mask).takes_surrogate(state.base)

    def map_mean(self, state: LotteryState, fn: Callable[[Solution], Solution]) -> LotteryState:
        """Returns the state with the base's mean changed."""
        return state._replace(base=self._masked(state.mask).map_mean(state.base, fn))

    @property
    def cannot_restart(self) -> str:
        """Why it cannot restart: it would forget what was pruned."""
        return "what was pruned would be forgotten: put the restarts inside, as the base of the lottery"

    def _prunable(self, solution: Solution) -> Any:
        return prunable_leaves(solution, self.exclude, name="Lottery.exclude")

    def _init(self, key: jax.Array, solution: Solution) -> LotteryState:
        self._prunable(solution)  # checks it
        mask = full_mask(solution)
        base = self._masked(mask).init(key, solution)
        return LotteryState(base, mask, solution, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def _ask(self, key: jax.Array, state: LotteryState, surrogate: Surrogate | None) -> tuple[Population, LotteryState]:
        is_over = state.generation >= self.generations_per_round

        def next_round() -> LotteryState:
            new = self._next_round(jax.random.fold_in(key, 1), state)
            return jax.tree.map(lambda new, old: jnp.where(is_over, new, old), new, state)

        # Batched seeds prune together. In all other generations none of them does.
        state = jax.lax.cond(any_in_batch(is_over), next_round, lambda: state)
        population, base = self._masked(state.mask).ask(key, state.base, surrogate)
        return population, state._replace(base=base)

    def _next_round(self, key: jax.Array, state: LotteryState) -> LotteryState:
        key_score, key_init = jax.random.split(key)
        prunable = self._prunable(state.solution)
        num_left = num_surviving(state.mask, prunable)
        num_pruned = jnp.round(self.prune_fraction * num_left.astype(float)).astype(num_left.dtype)
        num_kept = jnp.maximum(num_left - num_pruned, 1)
        mask = keep_best(self._scores(key_score, state), state.mask, num_kept, prunable)
        base = self._masked(mask).init(key_init, state.solution)
        base = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), base, state.base)  # without weak types
        return LotteryState(base, mask, state.solution, jnp.zeros_like(state.generation), state.round + 1)

    def _scores(self, key: jax.Array, state: LotteryState) -> Solution:
        if self.score == "random":
            return uniform_like(key, state.solution)
        magnitude = jax.tree.map(jnp.abs, self.mean(state))
        if self.score == "magnitude":
            return magnitude
        std = self.std(state)
        # A weight that is not sampled (frozen, or trained by the gradient) goes last. If none is sampled, magnitudes
        # decide.
        is_sampled = jnp.any(jnp.stack([jnp.any(s > 0) for s in jax.tree.leaves(std)]))

        def ratio(m: jax.Array, s: jax.Array) -> jax.Array:
            return jnp.where(s > 0, m / jnp.where(s > 0, s, 1), jnp.where(is_sampled, jnp.inf, m))

        return jax.tree.map(ratio, magnitude, std)

    def _tell(self, state: LotteryState, population: Population, evaluation: Evaluation) -> LotteryState:
        masked = self._masked(state.mask)
        base = masked.tell(state.base, population, evaluation)
        base = masked.map_mean(base, self._decay)
        return state._replace(base=base, generation=state.generation + 1)

    def _decay(self, mean: Solution) -> Solution:
        return jax.tree.map(lambda x: (x - self.weight_decay * x).astype(x.dtype), mean)
