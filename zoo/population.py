"""The only module that knows how a population is stored.

A population is a pytree with the structure of one solution and a leading axis of `population_size` members.
Everything else - problems, `run`, a user's own loop - goes through these functions, so that a population can one
day be something other than stacked arrays (seeds, low-rank factors) without touching its users.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def map_members(fn: Callable[..., Any], population: Any, *args: Any, batch_size: int | None = None) -> Any:
    """Applies a function of one solution to every member of a population.

    Args:
        fn: `fn(solution, *args_of_the_member)`, traceable by JAX.
        population: A population as returned by `Strategy.ask`.
        *args: Further pytrees with a leading axis of `population_size`, mapped along with the members. What all
            members share is closed over by `fn` instead.
        batch_size: Evaluate at most this many members at a time, to bound memory. Default: all at once.

    Returns:
        The results of `fn`, stacked along a leading axis of `population_size`.

    Raises:
        ValueError: If `batch_size` is not positive, or the members are not stacked consistently.

    >>> import jax.numpy as jnp, zoo
    >>> zoo.map_members(lambda x: jnp.sum(x**2), jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    Array([ 5., 25.], dtype=float32)
    """
    size = population_size(population)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"map_members: batch_size must be at least 1, got {batch_size}.")
    if batch_size is None or batch_size >= size:
        return jax.vmap(fn)(population, *args)
    return jax.lax.map(lambda member: fn(*member), (population, *args), batch_size=batch_size)


def population_size(population: Any) -> int:
    """Returns the number of members of a population.

    Raises:
        ValueError: If the population is empty, or its leaves disagree on the number of members.
    """
    shapes = [tuple(jnp.shape(leaf)) for leaf in jax.tree.leaves(population)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            "A population is a pytree of arrays that share their leading axis (population_size), got leaves with "
            f"shapes {shapes}."
        )
    return shapes[0][0]


def take_member(population: Any, index: Any) -> Any:
    """Returns one member of a population as a solution; `index` may be traced."""
    return jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=0), population)


def repeat_solution(solution: Any, size: int) -> Any:
    """Returns a population of `size` copies of one solution (broadcast, not stored)."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (size, *jnp.shape(leaf))), solution)
