"""Surrogate gradients: directions that a problem gives in addition to fitness. They may be biased or cheap."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from zoo.core.population import Population, map_members, materialize
from zoo.core.solution import Solution
from zoo.core.structure import fit_structure

Surrogate = Callable[[Solution], Solution]
"""Maps a solution to a surrogate gradient of the same structure. A `SurrogateGradient` also maps populations."""


@dataclasses.dataclass(frozen=True)
class SurrogateGradient:
    """A problem's surrogate gradient: a function of one solution, and a function of a population.

    Attributes:
        gradient: Maps a solution to its gradient, averaged over the data of all groups.
        members: Maps a population to the gradient of each member, `[population_size, ...]`, on the data on which
            `evaluate` evaluates that member.
    """

    gradient: Surrogate
    members: Callable[[Population], Any]

    def __call__(self, solution: Solution) -> Solution:
        """Returns the gradient at a solution, averaged over the data of all groups."""
        return self.gradient(solution)


def gradient_of_members(surrogate: Surrogate, population: Population) -> Any:
    """Returns the surrogate gradient of each member, `[population_size, ...]`.

    A `SurrogateGradient` takes each member's gradient on the member's own data.
    """
    if isinstance(surrogate, SurrogateGradient):
        return surrogate.members(population)
    return map_members(surrogate, population)


def checked_surrogate(surrogate: Surrogate | None, *, needed_by: str | None) -> SurrogateGradient | None:
    """Returns the surrogate with its gradients checked and converted to the dtypes of the solution.

    Args:
        surrogate: The surrogate, or `None` if there is none.
        needed_by: The name of the strategy if it needs a surrogate, otherwise `None`.

    Raises:
        TypeError: If a surrogate is needed and there is none.
    """
    if surrogate is None:
        if needed_by is None:
            return None
        raise TypeError(
            f"{needed_by} needs a surrogate gradient, and this problem has none. Give the problem a "
            "`gradient` method (or `differentiable = True` if autodiff of `fitness` gives it), or choose a strategy "
            "that needs no surrogate gradient, such as open_es."
        )

    def fit(gradient: Any, solution: Any) -> Any:
        gradient = fit_structure("A surrogate gradient", gradient, solution, exact=True)
        return jax.tree.map(lambda g, x: jnp.asarray(g, x.dtype), gradient, solution)

    return SurrogateGradient(
        lambda solution: fit(surrogate(solution), solution),
        lambda population: fit(gradient_of_members(surrogate, population), jax.eval_shape(materialize, population)),
    )
