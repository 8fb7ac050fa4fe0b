"""Holds parts of a solution fixed. Any strategy searches the other leaves and entries, as if there were no others.

The base strategy gets a smaller solution, with the free leaves and entries only. Members are completed with the initial
values of the frozen ones before they are evaluated.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from zoo.core import (
    Evaluation,
    Population,
    Solution,
    Surrogate,
    as_patterns,
    find_leaves,
    fit_structure,
    leaf_name,
    static,
)
from zoo.core.parts import Part, StaticMask
from zoo.strategies.wrappers.base import Wrapper, map_surrogate


class FrozenState(NamedTuple):
    """State of `Frozen`."""

    base: Any  # the base's state, on the free entries
    solution: Solution  # the initial solution, which has the frozen entries


class Frozen(Wrapper):
    """Holds some leaves or entries of the solution fixed at their initial values; a base strategy searches the others.

    The base sees only what is free, so that settings that depend on the number of dimensions are right. A leaf that is
    wholly free keeps its shape; a leaf that is partly free is the vector of its free entries, in C order. Put `bounded`
    around `frozen`, not inside it, so that its bounds are in the structure of the user's solution.

    Attributes:
        frozen: What stays fixed: a regular expression, or several, that are searched for in the paths of the leaves,
            such as `"^params/Dense_0/"`; or booleans in the structure of the solution, each a scalar for a whole leaf
            or an array that broadcasts to it. By default nothing is fixed.
    """

    frozen: Any = static(default=())

    def __post_init__(self) -> None:
        """Checks the settings, and makes the base."""
        if not _is_patterns(self.frozen):
            object.__setattr__(self, "frozen", _as_mask(self.frozen))
        super().__post_init__()
        if not isinstance(self.frozen, StaticMask):
            object.__setattr__(self, "frozen", as_patterns(self.frozen, "Frozen.frozen"))

    def mean(self, state: FrozenState) -> Solution:
        """Returns the base's mean, with the initial values where frozen."""
        return self._free(state.solution).join(self.base.mean(state.base), state.solution)

    def std(self, state: FrozenState) -> Solution:
        """Returns the base's standard deviations, and zero where frozen."""
        zeros = jax.tree.map(jnp.zeros_like, state.solution)
        return self._free(state.solution).join(self.base.std(state.base), zeros)

    def map_mean(self, state: FrozenState, fn: Callable[[Solution], Solution]) -> FrozenState:
        """Returns the state with the base's mean changed where it is free."""
        free = self._free(state.solution)

        def on_part(part: Solution) -> Solution:
            return free.split(fn(free.join(part, state.solution)))

        return state._replace(base=self.base.map_mean(state.base, on_part))

    def _init(self, key: jax.Array, solution: Solution) -> FrozenState:
        return FrozenState(self.base.init(key, self._searched(solution)), solution)

    def _ask(self, key: jax.Array, state: FrozenState, surrogate: Surrogate | None) -> tuple[Population, FrozenState]:
        free = self._free(state.solution)
        base_surrogate = map_surrogate(
            surrogate,
            to_solution=lambda part: free.join(part, state.solution),
            to_population=lambda part: free.join_members(part, state.solution),
            from_gradient=free.split,
        )
        part, base = self.base.ask(key, state.base, base_surrogate)
        return free.join_members(part, state.solution), state._replace(base=base)

    def _tell(self, state: FrozenState, population: Population, evaluation: Evaluation) -> FrozenState:
        free = self._free(state.solution)
        evaluation = evaluation.map_gradient(free.split)
        return state._replace(base=self.base.tell(state.base, free.split_members(population), evaluation))

    def _searched(self, solution: Solution) -> Solution:
        return self._free(solution).split(solution)

    def _free(self, solution: Solution) -> Part:
        """Returns which part of a solution is free."""
        if isinstance(self.frozen, StaticMask):
            frozen = fit_structure("Frozen.frozen", self.frozen.tree, solution)
        else:
            way_out = "give frozen=() to keep nothing fixed"
            frozen = find_leaves(self.frozen, solution, "Frozen.frozen", way_out=way_out)
        free = Part.of(frozen, solution).others
        if free.is_empty:
            raise ValueError(
                "Frozen.frozen covers the whole solution, so nothing is left to search. Leave at least one entry free."
            )
        return free


def _is_patterns(frozen: Any) -> bool:
    return isinstance(frozen, str) or (
        isinstance(frozen, (tuple, list)) and all(isinstance(pattern, str) for pattern in frozen)
    )


def _as_mask(frozen: Any) -> StaticMask:
    """Returns booleans in the structure of a solution as a setting.

    Raises:
        TypeError: If a leaf is not boolean, or is not known when the program is compiled.
    """
    if isinstance(frozen, StaticMask):
        return frozen
    for path, leaf in jax.tree_util.tree_leaves_with_path(frozen):
        if isinstance(leaf, Tracer) or np.asarray(leaf).dtype != bool:
            raise TypeError(
                "Frozen.frozen must be regular expressions for the paths of leaves, or booleans in the structure of "
                f"the solution that are known when the program is compiled, got {leaf!r} for "
                f"{leaf_name(path) or 'the solution'}."
            )
    return StaticMask.of(frozen)
