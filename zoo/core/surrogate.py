"""Surrogate gradients: directions that a problem gives beside fitness, and that may be biased or cheap."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from zoo.core.population import Population, map_members, materialize
from zoo.core.solution import Solution
from zoo.core.structure import fit_structure

Surrogate = Callable[[Solution], Solution]
"""Maps a solution to a surrogate gradient of the same structure; a `SurrogateGradient` can do more."""


@dataclasses.dataclass(frozen=True)
class SurrogateGradient:
    """A surrogate gradient as a problem gives it: a function of one solution, or of each member of a population.

    Attributes:
        gradient: From a solution to its gradient, averaged over the data of all groups.
        members: From a population to the gradient of each member, `[population_size, ...]`, on the data that `evaluate`
            evaluates it on.
    """

    gradient: Surrogate
    members: Callable[[Population], Any]

    def __call__(self, solution: Solution) -> Solution:
        """Returns the gradient at a solution, averaged over the data of all groups."""
        return self.gradient(solution)


def gradient_of_members(surrogate: Surrogate, population: Population) -> Any:
    """Returns the surrogate gradient of each member, `[population_size, ...]`, each on its own data if it has any."""
    if isinstance(surrogate, SurrogateGradient):
        return surrogate.members(population)
    return map_members(surrogate, population)


def checked_surrogate(surrogate: Surrogate | None, *, needed_by: str | None) -> SurrogateGradient | None:
    """Returns the surrogate with gradients in the dtypes of the solution, or an error if they do not fit it.

    Args:
        surrogate: The surrogate, or `None`: there is none.
        needed_by: The name of a strategy that cannot do without, or `None`.

    Raises:
        TypeError: If there is none, and it is needed.
    """
    if surrogate is None:
        if needed_by is None:
            return None
        raise TypeError(
            f"{needed_by} needs a surrogate gradient, and this problem has none. Give the problem a "
            "`gradient` method (or `differentiable = True` where autodiff of `fitness` will do), or choose a "
            "strategy that needs none, such as open_es."
        )

    def fit(gradient: Any, solution: Any) -> Any:
        gradient = fit_structure("A surrogate gradient", gradient, solution, exact=True)
        return jax.tree.map(lambda g, x: jnp.asarray(g, x.dtype), gradient, solution)

    return SurrogateGradient(
        lambda solution: fit(surrogate(solution), solution),
        lambda population: fit(gradient_of_members(surrogate, population), jax.eval_shape(materialize, population)),
    )
