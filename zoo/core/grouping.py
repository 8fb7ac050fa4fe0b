"""Groups of members, which share keys, initial inner states and resets: their numbers, their keys, and checks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.evaluation import Groups
from zoo.core.population import population_size


def check_groups(groups: Any, *, differentiable: bool) -> None:
    """Raises a `TypeError` if `groups` is not a `Groups`, or requires derivatives of a problem that has none."""
    if not isinstance(groups, Groups):
        raise TypeError(
            "Problem.init expects Groups, such as `strategy.groups` or `zoo.Groups.of(population_size)` for one group, "
            f"got {type(groups).__name__}."
        )
    if groups.sensitivity is not None and not differentiable:
        raise TypeError(
            "The strategy follows the derivative of the inner state with respect to the solution, and this problem has "
            "none. Choose a strategy that needs no derivative, such as nres, or make the problem differentiable."
        )


def number_groups(groups: Groups) -> tuple[jax.Array, jax.Array]:
    """Numbers groups consecutively. Returns the group of each member, and one member of each group.

    If there are parents, it returns for each group a member from whose inner state the group continues.

    Raises:
        TypeError: If the groups or parents are traced or have a wrong shape or type.
        ValueError: If a parent is not a member of the same group.
    """
    ids = _concrete_integers(groups.ids, "groups")
    _, members, numbered = np.unique(ids, return_index=True, return_inverse=True)
    if groups.parents is not None:
        parents = _concrete_integers(groups.parents, "parents")
        in_range = parents.shape == ids.shape and np.all((parents >= 0) & (parents < len(ids)))
        if not in_range or np.any(ids[parents] != ids):
            raise ValueError(
                f"Groups.parents must name, for each of the {len(ids)} members, one of its own group, got {parents}."
            )
        members = parents[members]
    return jnp.asarray(numbered, jnp.int32), jnp.asarray(members, jnp.int32)


def _concrete_integers(values: Any, name: str) -> np.ndarray:
    try:
        values = np.asarray(values)
    except jax.errors.TracerArrayConversionError:
        raise TypeError(
            f"Problem.init needs concrete {name}, because their number shapes the program. Pass `strategy.groups`, not "
            "a traced array."
        ) from None
    if (name == "groups" and values.ndim != 1) or not np.issubdtype(values.dtype, np.integer):
        raise TypeError(
            f"Problem.init expects {name} of shape [population_size] and integer type, got shape {values.shape} of "
            f"{values.dtype}."
        )
    return values


def group_keys(key: jax.Array, num_groups: int) -> jax.Array:
    """Returns one key for each group."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(num_groups))


def check_population_size(problem: Any, population: Any, groups: jax.Array) -> int:
    """Returns the population size. Raises a `ValueError` if the problem state was made for another size."""
    size = population_size(population)
    if size != groups.shape[0]:
        raise ValueError(
            f"{type(problem).__name__}.evaluate got {size} members, but its state was made for groups of "
            f"{groups.shape[0]} members. Call problem.init with the groups of the strategy whose members you evaluate."
        )
    return size
