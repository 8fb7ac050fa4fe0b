"""Parts of a solution held fixed: any strategy searches the other leaves and entries as if they were all there is."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from zoo.core import (
    Evaluation,
    ImplicitPopulation,
    Population,
    Solution,
    Surrogate,
    as_patterns,
    check_structure,
    find_leaves,
    leaf_name,
    population_size,
    repeat_solution,
    static,
)
from zoo.strategies.wrappers.base import PartPopulation, Wrapper, map_mean, map_surrogate


class FrozenState(NamedTuple):
    """State of `Frozen`."""

    base: Any  # of the base strategy, on the free entries
    solution: Solution  # the initial one, where the frozen entries stay


@dataclasses.dataclass(frozen=True, eq=False)
class Mask:
    """Booleans in the structure of a solution, as a setting that shapes the program: immutable, compared by value."""

    structure: Any
    leaves: tuple[np.ndarray, ...]

    def __eq__(self, other: object) -> bool:
        """Whether structure, shapes and values are equal."""
        return isinstance(other, Mask) and self._content == other._content

    def __hash__(self) -> int:
        """Returns a hash of structure, shapes and values."""
        return hash(self._content)

    @functools.cached_property
    def _content(self) -> tuple[Any, ...]:
        return self.structure, tuple((leaf.shape, leaf.tobytes()) for leaf in self.leaves)

    def for_solution(self, solution: Solution) -> Any:
        """Returns the booleans as a pytree, having checked that they fit a solution.

        Raises:
            ValueError: If they do not.
        """
        mask = jax.tree.unflatten(self.structure, self.leaves)
        check_structure("Frozen.frozen", mask, solution)
        return mask


class Frozen(Wrapper):
    """Keeps some leaves or entries of the solution as they are at the start; a base strategy searches the others.

    The base sees only what is free, so that settings that depend on the number of dimensions are right: a leaf that is
    wholly free in its own shape, and of one that is partly free the vector of its free entries, in C order. So that
    `bounded` sees the solution as the user does, it goes around `frozen` rather than inside it.

    Attributes:
        frozen: What stays fixed: a regular expression, or several, one of which is found in the paths of the leaves
            meant, such as `"^params/Dense_0/"`; or booleans in the structure of the solution, each a scalar for a
            whole leaf or an array that broadcasts to it. Default: nothing.
    """

    frozen: Any = static(default=())

    def __post_init__(self) -> None:
        """Checks the settings, and makes the base."""
        if not _is_patterns(self.frozen):
            object.__setattr__(self, "frozen", _as_mask(self.frozen))
        super().__post_init__()
        if not isinstance(self.frozen, Mask):
            object.__setattr__(self, "frozen", as_patterns(self.frozen, "Frozen.frozen"))

    def mean(self, state: FrozenState) -> Solution:
        """Returns the base's mean, and the initial values of what is frozen."""
        return self._join(self._sized_base.mean(state.base), state.solution, state.solution)

    def std(self, state: FrozenState) -> Solution:
        """Returns the base's standard deviations, and zero for what is frozen."""
        zeros = jax.tree.map(jnp.zeros_like, state.solution)
        return self._join(self._sized_base.std(state.base), zeros, state.solution)

    def _init(self, key: jax.Array, solution: Solution) -> FrozenState:
        return FrozenState(self._sized_base.init(key, self._searched(solution)), solution)

    def _ask(self, key: jax.Array, state: FrozenState, surrogate: Surrogate | None) -> tuple[Population, FrozenState]:
        def join(part: Population) -> Population:
            if isinstance(part, ImplicitPopulation):
                return PartPopulation(part=part, rest=state.solution, wrapper=self)
            return self._join(part, repeat_solution(state.solution, population_size(part)), state.solution)

        base_surrogate = map_surrogate(
            surrogate,
            to_solution=lambda part: self._join(part, state.solution, state.solution),
            to_population=join,
            from_gradient=lambda gradient: self._split(gradient, state.solution),
        )
        part, base = self._sized_base.ask(key, state.base, base_surrogate)
        return join(part), state._replace(base=base)

    def _tell(self, state: FrozenState, population: Population, evaluation: Evaluation) -> FrozenState:
        is_part = isinstance(population, PartPopulation)
        part = population.part if is_part else self._split(population, state.solution)
        return state._replace(base=self._sized_base.tell(state.base, part, evaluation))

    def _searched(self, solution: Solution) -> Solution:
        return self._split(solution, solution)

    def _split_part(self, solution: Solution) -> tuple[Solution, Solution]:
        return self._searched(solution), solution

    def _join_part(self, part: Solution, solution: Solution) -> Solution:
        return self._join(part, solution, solution)

    def _map_mean(self, state: FrozenState, fn: Callable[[Solution], Solution]) -> FrozenState:
        def on_part(part: Solution) -> Solution:
            return self._searched(fn(self._join(part, state.solution, state.solution)))

        return state._replace(base=map_mean(self._sized_base, state.base, on_part))

    def _split(self, values: Any, solution: Solution) -> Any:
        """Returns the free entries of values in the structure of a solution, with leading axes of their own or none.

        A leaf that is wholly frozen is left out: it becomes None.
        """

        def free_entries(x: jax.Array, like: jax.Array, is_free: np.ndarray) -> jax.Array | None:
            if is_free.all():
                return x
            axes = jnp.shape(x)[: jnp.ndim(x) - jnp.ndim(like)]
            return jnp.reshape(x, (*axes, -1))[..., np.flatnonzero(is_free)] if is_free.any() else None

        return jax.tree.map(free_entries, values, solution, self._free(solution))

    def _join(self, part: Any, values: Any, solution: Solution) -> Any:
        """Returns the values, in the structure of a solution, with the free entries replaced by those of the part."""

        def put(x: jax.Array, entries: jax.Array | None, like: jax.Array, is_free: np.ndarray) -> jax.Array:
            if entries is None or is_free.all():
                return x if entries is None else entries
            flat = jnp.reshape(x, (*x.shape[: x.ndim - like.ndim], -1))
            return flat.at[..., np.flatnonzero(is_free)].set(entries).reshape(x.shape)

        return jax.tree.map(put, values, part, solution, self._free(solution))

    def _free(self, solution: Solution) -> Any:
        """Returns which entries are free: boolean arrays in the structure and the shapes of the solution."""
        if isinstance(self.frozen, Mask):
            frozen = self.frozen.for_solution(solution)
        else:
            way_out = "give frozen=() to keep nothing fixed"
            frozen = find_leaves(self.frozen, solution, "Frozen.frozen", way_out=way_out)
        free = jax.tree.map(
            lambda x, is_frozen: np.broadcast_to(~np.asarray(is_frozen), jnp.shape(x)), solution, frozen
        )
        if not any(is_free.any() for is_free in jax.tree.leaves(free)):
            raise ValueError(
                "Frozen.frozen covers the whole solution, and leaves nothing to search. Leave at least one entry free."
            )
        return free


def _is_patterns(frozen: Any) -> bool:
    return isinstance(frozen, str) or (
        isinstance(frozen, (tuple, list)) and all(isinstance(pattern, str) for pattern in frozen)
    )


def _as_mask(frozen: Any) -> Mask:
    """Returns booleans in the structure of a solution as a setting.

    Raises:
        TypeError: If they are not booleans.
    """
    if isinstance(frozen, Mask):
        return frozen
    leaves = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(frozen):
        if isinstance(leaf, Tracer) or np.asarray(leaf).dtype != bool:
            raise TypeError(
                "Frozen.frozen must be regular expressions for paths of leaves, or booleans in the structure of the "
                f"solution that are known when the program is compiled, got {leaf!r} for "
                f"{leaf_name(path) or 'the solution'}."
            )
        leaves.append(np.array(leaf))  # a copy, so that nobody changes it
        leaves[-1].flags.writeable = False
    return Mask(jax.tree.structure(frozen), tuple(leaves))
