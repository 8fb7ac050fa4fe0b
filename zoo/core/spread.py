"""The initial spread (`sigma`) of a search: one number for all parameters, or one for each."""

from typing import Any

import jax
import jax.numpy as jnp

from zoo.core.promotion import ravel
from zoo.core.solution import Solution
from zoo.core.space import Space
from zoo.core.structure import fit_structure


def spread_over(sigma: Any, solution: Solution, name: str = "sigma") -> Solution:
    """Returns an initial spread as arrays with the structure, shapes and dtypes of a solution.

    Args:
        sigma: A number, or numbers and arrays in the structure of the solution that broadcast to its leaves. A list of
            numbers stands for an array.
        solution: A solution.
        name: The name of the setting, for messages.

    Raises:
        ValueError: If `sigma` does not fit the solution.
    """
    if is_one_number(sigma):
        return jax.tree.map(lambda x: jnp.full_like(x, sigma), solution)
    sigma = fit_structure(name, sigma, solution)
    return jax.tree.map(lambda x, s: jnp.broadcast_to(jnp.asarray(s, x.dtype), x.shape), solution, sigma)


def is_one_number(sigma: Any) -> bool:
    """Whether a spread is one number for all parameters."""
    return jax.tree_util.treedef_is_leaf(jax.tree.structure(sigma)) and jnp.ndim(sigma) == 0


def step_size_and_units(sigma: Any, solution: Solution, space: Space, name: str) -> tuple[Any, Solution | None]:
    """Returns a step size, and the unit of each parameter: its spread divided by the step size.

    The step size is the geometric mean of the spreads of all searched parameters, so the product of their units is one.

    Args:
        sigma: As in `spread_over`.
        solution: A solution.
        space: The entries of the solution that are searched.
        name: The name of the setting, for messages.

    Returns:
        The step size, and the units in the structure of the solution. The units are `None` if `sigma` is one number.
    """
    if is_one_number(sigma):
        return sigma, None
    spread = spread_over(sigma, solution, name)
    logs, _ = ravel(jax.tree.map(jnp.log, spread))
    step_size = jnp.exp(jnp.sum(space.restrict_flat(logs)) / space.num_dims(solution))
    return step_size, jax.tree.map(lambda s: s / step_size.astype(s.dtype), spread)
