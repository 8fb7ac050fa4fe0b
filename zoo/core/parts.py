"""Splits a solution into a part and the rest, and joins them again."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.masks import apply_mask
from zoo.core.population import ImplicitPopulation, Population, population_size, repeat_solution
from zoo.core.settings import leaf, static
from zoo.core.solution import Solution


@dataclasses.dataclass(frozen=True, eq=False)
class StaticMask:
    """Booleans in the structure of a solution as a static setting: immutable, hashable and compared by value."""

    structure: Any
    leaves: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, mask: Any) -> "StaticMask":
        """Returns a mask of booleans. They must not be traced."""
        leaves = tuple(np.array(x, bool) for x in jax.tree.leaves(mask))  # copies, which no caller can change
        for x in leaves:
            x.flags.writeable = False
        return cls(jax.tree.structure(mask), leaves)

    @property
    def tree(self) -> Any:
        """The booleans as a pytree."""
        return jax.tree.unflatten(self.structure, self.leaves)

    def __eq__(self, other: object) -> bool:
        """Whether structure, shapes and values are equal."""
        return isinstance(other, StaticMask) and self._content == other._content

    def __hash__(self) -> int:
        """Returns a hash of structure, shapes and values."""
        return hash(self._content)

    @functools.cached_property
    def _content(self) -> tuple[Any, ...]:
        return self.structure, tuple((leaf.shape, leaf.tobytes()) for leaf in self.leaves)


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a solution: some of its entries.

    The part has the solution's structure. A leaf that is wholly in the part keeps its shape. A leaf that is partly in
    the part becomes the vector of its chosen entries, in C order. Any other leaf becomes `None`.

    Attributes:
        chosen: Which entries are in the part, in the structure of the solution: one boolean for a whole leaf, or
            booleans of the leaf's shape if the leaf is partly chosen.
    """

    chosen: StaticMask

    @classmethod
    def of(cls, chosen: Any, solution: Solution) -> "Part":
        """Returns the part that booleans choose, in the structure of the solution. They broadcast to its leaves."""

        def compact(chosen: Any, x: jax.Array) -> np.ndarray:
            chosen = np.asarray(chosen)
            is_whole = chosen.all() or not chosen.any()
            return chosen.all() if is_whole else np.broadcast_to(chosen, jnp.shape(x))

        return cls(StaticMask.of(jax.tree.map(compact, chosen, solution)))

    @property
    def others(self) -> "Part":
        """The part that has all other entries."""
        return Part(StaticMask.of(jax.tree.map(np.logical_not, self.chosen.tree)))

    @property
    def is_empty(self) -> bool:
        """Whether no entry is chosen."""
        return not any(chosen.any() for chosen in self.chosen.leaves)

    def split(self, values: Any) -> Any:
        """Returns the part of values in the structure of a solution, which may have further leading axes."""

        def entries(chosen: np.ndarray, x: jax.Array) -> jax.Array | None:
            if chosen.all() or not chosen.any():
                return x if chosen.all() else None
            axes = jnp.shape(x)[: jnp.ndim(x) - chosen.ndim]
            return jnp.reshape(x, (*axes, -1))[..., np.flatnonzero(chosen)]

        return jax.tree.map(entries, self.chosen.tree, values)

    def join(self, part: Any, rest: Any) -> Any:
        """Returns the rest with the entries of the part put in.

        Args:
            part: The result of `split`. It may have leading axes.
            rest: Values in the structure of a solution. Entries that are in the part are ignored. Their leaves may be
                `None`.
        """

        def put(chosen: np.ndarray, entries: jax.Array | None, x: jax.Array) -> jax.Array:
            if entries is None or chosen.all():
                return x if entries is None else entries
            flat = jnp.reshape(x, (*x.shape[: x.ndim - chosen.ndim], -1))
            return flat.at[..., np.flatnonzero(chosen)].set(entries).reshape(x.shape)

        return self._map(put, part, rest)

    def join_members(self, part: Population, rest: Solution) -> Population:
        """Returns the population with the given part of each member. The rest is the same in all members."""
        if isinstance(part, ImplicitPopulation):
            return PartPopulation(part=part, rest=rest, of=self)
        return self.join(part, repeat_solution(rest, population_size(part)))

    def split_members(self, population: Population) -> Population:
        """Returns the part of each member of a population. It may be a result of `join_members`, or stacked arrays."""
        return population.part if isinstance(population, PartPopulation) else self.split(population)

    def _map(self, fn: Callable[..., Any], *values: Any) -> Any:
        """Applies a function to `chosen` and the leaves of values. The leaves may be `None`."""
        structure = self.chosen.structure
        columns = [structure.flatten_up_to(x) for x in values]
        return jax.tree.unflatten(structure, [fn(*row) for row in zip(self.chosen.leaves, *columns, strict=True)])


class PartPopulation(ImplicitPopulation):
    """A population in which one part of each member is an `ImplicitPopulation` and the rest is the same in all members.

    Attributes:
        part: The population of the part.
        rest: The other entries of a solution.
        of: Which entries are in the part.
    """

    part: Any = leaf()
    rest: Any = leaf()
    of: Part = static()

    @property
    def size(self) -> int:
        """The number of members."""
        return self.part.size

    def map(self, fn: Callable[..., Any], *args: Any, batch_size: int | None = None) -> Any:
        """Applies a function to every member; see `zoo.map_members`."""

        def of_part(part: Any, *args: Any) -> Any:
            return fn(self.of.join(part, self.rest), *args)

        return self.part.map(of_part, *args, batch_size=batch_size)

    def member(self, index: Any) -> Solution:
        """Returns one member as a solution."""
        return self.of.join(self.part.member(index), self.rest)

    def masked(self, mask: Any) -> "PartPopulation":
        """Returns the population with zeros in every member where a mask is false."""
        rest = jax.tree.map(lambda m, x: None if x is None else apply_mask(m, x), mask, self.rest)
        return self.replace(part=self.part.masked(self.of.split(mask)), rest=rest)

    def weighted_sum(self, weights: jax.Array) -> Solution:
        """Returns sum_i weights_i (x_i - mean) over the members."""
        return self.of.join(self.part.weighted_sum(weights), jax.tree.map(jnp.zeros_like, self.rest))
