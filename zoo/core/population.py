"""The only module that knows how a population is stored.

A population is a pytree in the structure of one solution with a leading axis of `population_size` members. Or it is an
`ImplicitPopulation`, whose members are made during the evaluation, from seeds or low-rank factors. All other code
(problems, `run`, a user's own loop) uses these functions and need not know which of the two it has.
"""

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from zoo.core import sharding
from zoo.core.checks import as_count, shown
from zoo.core.settings import PytreeDataclass

Population = Any
"""The solutions of one generation: stacked arrays, or an `ImplicitPopulation`."""


def map_members(fn: Callable[..., Any], population: Any, *args: Any, batch_size: int | None = None) -> Any:
    """Applies a function of one solution to every member of a population.

    Args:
        fn: `fn(solution, *args_of_the_member)`, traceable by JAX.
        population: A population as returned by `Strategy.ask`.
        *args: Further pytrees with a leading axis of `population_size`, mapped along with the members. `fn` should
            close over values that all members share.
        batch_size: Evaluates at most this many members at a time (on each device), to bound memory. By default it
            evaluates all at once; seeded populations default to batches of about 64 MB.

    Returns:
        The results of `fn`, stacked along a leading axis of `population_size`.

    Raises:
        ValueError: If `batch_size` is not positive, or the members are not stacked consistently.

    >>> import jax.numpy as jnp, zoo
    >>> zoo.map_members(lambda x: jnp.sum(x**2), jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    Array([ 5., 25.], dtype=float32)
    """
    if not callable(fn):
        raise TypeError(f"map_members: fn must be a function of one solution, got {shown(fn)}.")
    size = population_size(population)
    if batch_size is not None:
        as_count(batch_size, "map_members: batch_size")
    sharding.check_divides(size, "A population")
    if isinstance(population, ImplicitPopulation):
        return population.map(fn, *args, batch_size=batch_size)

    def map_stacked(members: tuple[Any, ...]) -> Any:
        return map_rows(fn, members, batch_size)

    if sharding.num_shards() > 1:
        map_stacked = sharding.on_shards(map_stacked, axes=(0,), out_axis=0)
    return map_stacked((population, *args))


def map_rows(fn: Callable[..., Any], args: tuple[Any, ...], batch_size: int | None) -> Any:
    """Maps a function over the rows of stacked arguments in batches of `batch_size`. With `None`, maps all at once."""
    if batch_size is None or batch_size >= jax.tree.leaves(args)[0].shape[0]:
        return jax.vmap(fn)(*args)
    # A batch of one would still be a batch: its random keys, for example, would cost more than a single key.
    return jax.lax.map(lambda row: fn(*row), args, batch_size=None if batch_size == 1 else batch_size)


class ImplicitPopulation(PytreeDataclass, abc.ABC):
    """A population whose members are not stored as stacked arrays, but made when they are needed."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """The number of members."""

    @abc.abstractmethod
    def map(self, fn: Callable[..., Any], *args: Any, batch_size: int | None = None) -> Any:
        """Applies a function to every member; see `map_members`."""

    @abc.abstractmethod
    def member(self, index: Any) -> Any:
        """Returns one member as a solution; `index` may be traced."""

    @abc.abstractmethod
    def masked(self, mask: Any) -> "ImplicitPopulation":
        """Returns the population with zeros in every member where a mask is false."""

    @abc.abstractmethod
    def weighted_sum(self, weights: jax.Array) -> Any:
        """Returns sum_i weights_i (x_i - mean) over the members, in the structure of a solution."""


def materialize(population: Any) -> Any:
    """Returns a population as stacked arrays, each leaf `[population_size, ...]`."""
    return map_members(lambda x: x, population) if isinstance(population, ImplicitPopulation) else population


def population_size(population: Any) -> int:
    """Returns the number of members of a population.

    Raises:
        ValueError: If the population is empty, or its leaves disagree on the number of members.
    """
    if isinstance(population, ImplicitPopulation):
        return population.size
    shapes: list[tuple[int, ...]] = [tuple(getattr(leaf, "shape", ())) for leaf in jax.tree.leaves(population)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            "A population is a pytree of arrays that share their leading axis (population_size), got leaves with "
            f"shapes {shapes}."
        )
    return shapes[0][0]


def take_member(population: Any, index: Any) -> Any:
    """Returns one member of a population as a solution; `index` may be traced."""
    if isinstance(population, ImplicitPopulation):
        return population.member(index)
    return sharding.take(population, index)


def repeat_solution(solution: Any, size: int) -> Any:
    """Returns a population of `size` copies of one solution (broadcast, not stored)."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (size, *jnp.shape(leaf))), solution)
