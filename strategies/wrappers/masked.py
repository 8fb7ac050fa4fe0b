"""A sparse solution: any strategy searches the weights that a mask keeps; the others are zero in every member.

Reference: Lange, Sprekeler 2023, arXiv 2306.00045, which trains sparse networks with evolution strategies.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from zoo.core import Evaluation, Population, Solution, Strategy, Surrogate, apply_mask, fit_structure, leaf
from zoo.core.checks import shown
from zoo.core.settings import is_rebuilt
from zoo.strategies.wrappers.base import Wrapper, map_surrogate


class MaskedState(NamedTuple):
    """State of `Masked`."""

    base: Any  # the base's state, on the whole solution


class Masked(Wrapper):
    """Searches the weights that a mask keeps; the others are zero in every member and in the mean.

    The mask is a leaf: it may be traced, and another mask needs no other program. (The mask of `frozen` is part of the
    program. `frozen` keeps the initial values, and hands the base only what is free.) The base still has numbers for
    every weight, but its update and its learning rates are as if there were only the weights kept. Given the same
    samples, strategies of this library move as they would on those weights alone. Default population sizes, optimizers
    that average over a leaf (adafactor) and other libraries' strategies still count all weights.

    Attributes:
        mask: Booleans in the structure and the shapes of the solution, true where a weight is kept. With `None`, all
            are kept.

    References:
        Lange, Sprekeler 2023, arXiv 2306.00045.
    """

    mask: Any = leaf(default=None)

    def __post_init__(self) -> None:
        """Checks the settings, and makes the base."""
        super().__post_init__()
        for x in jax.tree.leaves(self.mask):
            if not is_rebuilt() and not isinstance(x, bool) and np.dtype(bool) != getattr(x, "dtype", None):
                raise TypeError(f"Masked.mask must be booleans in the structure of the solution, got {shown(x)}.")

    def for_mask(self, mask: Any) -> Self:
        """Returns the strategy for what both masks keep."""
        return self.replace(mask=mask if self.mask is None else jax.tree.map(jnp.logical_and, self.mask, mask))

    def mean(self, state: MaskedState) -> Solution:
        """Returns the base's mean, zero where pruned."""
        return apply_mask(self.mask, super().mean(state))

    def std(self, state: MaskedState) -> Solution:
        """Returns the base's standard deviations, zero where pruned."""
        return apply_mask(self.mask, self._kept_base.std(state.base))

    def condition_number(self, state: MaskedState) -> jax.Array:
        """Returns the condition number of the base."""
        return self._kept_base.condition_number(state.base)

    @property
    def _kept_base(self) -> Strategy:
        return self.base if self.mask is None else self.base.for_mask(self.mask)

    def _init(self, key: jax.Array, solution: Solution) -> MaskedState:
        if self.mask is not None:
            fit_structure("Masked.mask", self.mask, solution, exact=True)  # the base counts kept entries
            leaves = jax.tree.leaves(self.mask)
            if not any(isinstance(m, Tracer) for m in leaves) and not any(np.asarray(m).any() for m in leaves):
                raise ValueError("Masked.mask keeps nothing, so nothing is left to search. Keep at least one weight.")
        return MaskedState(self._kept_base.init(key, apply_mask(self.mask, solution)))

    def _ask(self, key: jax.Array, state: MaskedState, surrogate: Surrogate | None) -> tuple[Population, MaskedState]:
        mask = functools.partial(apply_mask, self.mask)
        base_surrogate = map_surrogate(surrogate, mask, mask, mask)
        population, base = self._kept_base.ask(key, state.base, base_surrogate)
        return mask(population), MaskedState(base)

    def _tell(self, state: MaskedState, population: Population, evaluation: Evaluation) -> MaskedState:
        # Masked again, because a wrapper around this one may have changed the members.
        mask = functools.partial(apply_mask, self.mask)
        return MaskedState(self._kept_base.tell(state.base, mask(population), evaluation.map_gradient(mask)))

    def map_mean(self, state: MaskedState, fn: Callable[[Solution], Solution]) -> MaskedState:
        """Returns the state with the base's mean changed where the mask keeps it."""

        def on_kept(solution: Solution) -> Solution:
            return apply_mask(self.mask, fn(apply_mask(self.mask, solution)))

        return MaskedState(self._kept_base.map_mean(state.base, on_kept))
