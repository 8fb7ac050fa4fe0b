"""What a problem says of a population, and which members it evaluates together."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.fitness import as_fitness
from zoo.core.population import Population, population_size
from zoo.core.sensitivity import Sensitivity

Aux = Mapping[str, jax.Array]
"""What a problem says of each member beside its fitness, by name; see `Problem.fitness_and_aux`."""


class Evaluation(NamedTuple):
    """What evaluating a population returns.

    Attributes:
        fitness: `[population_size]`, lower is better. NaN counts as the worst.
        done: `[population_size]` booleans, true where the member's inner episode ended and was reset; always true for
            a problem without inner state.
        steps: Scalar: how many problem steps this evaluation spent.
        repaired: `[population_size]` booleans, true where a wrapper changed the member after it was drawn, as bounds
            do, so that it is no sample of the search distribution; `None`: none was.
        aux: What else the problem says of each member, by name, `[population_size, ...]` each.
        gradient: An estimate of the derivative of each member's fitness by its solution, `[population_size, ...]` in
            the structure of a solution, if the strategy's groups named a `Sensitivity`; otherwise `None`.
    """

    fitness: jax.Array
    done: jax.Array
    steps: jax.Array
    repaired: jax.Array | None = None
    aux: Aux = {}  # noqa: RUF012 - nobody changes it
    gradient: Population | None = None

    @classmethod
    def of(cls, fitness: Any, size: int) -> "Evaluation":
        """Returns the evaluation of so many members of which nothing but the fitness is known."""
        return cls(fitness, jnp.ones(size, bool), jnp.asarray(size, jnp.int32))

    def map_gradient(self, fn: Callable[[Population], Population]) -> "Evaluation":
        """Returns the evaluation with its gradients, if it has any, changed by a function."""
        return self if self.gradient is None else self._replace(gradient=fn(self.gradient))


class Groups(NamedTuple):
    """Which members belong together, and what they ask of a problem with inner episodes; see `Strategy.groups`.

    Attributes:
        ids: `[population_size]` integers: members with the same id see the same data, inner start and reset.
        parents: `[population_size]` integers: the member from whose inner state each member starts its next window, one
            of its own group. `None`: its own.
        whole_episodes: Whether an evaluation must unroll whole episodes, however long the problem's window is.
        sensitivity: How the problem is to follow the derivatives of inner states by the solution, for
            `Evaluation.gradient`. `None`: not at all.
    """

    ids: np.ndarray
    parents: np.ndarray | None = None
    whole_episodes: bool = False
    sensitivity: Sensitivity | None = None

    @classmethod
    def of(cls, size: int, group_size: int | None = None) -> "Groups":
        """Returns groups of so many members each: of n groups, members i, i + n, i + 2 n, ... are one.

        Args:
            size: The population size.
            group_size: Members of a group; 2 for antithetic pairs. `None`: all are one group.
        """
        group_size = group_size or size
        return cls(np.tile(np.arange(size // group_size, dtype=np.int32), group_size))


MAX_STEPS = 2**30
"""Problem steps of one generation from which on they are not counted, so that a few generations fit into 32 bits."""


def total_steps(steps: jax.Array) -> jax.Array:
    """Returns the sum of what the members spent, or `MAX_STEPS` if that is less."""
    is_small = jnp.sum(steps.astype(float)) < MAX_STEPS  # a sum of whole numbers would wrap
    return jnp.where(is_small, jnp.sum(steps, dtype=jnp.int32), MAX_STEPS)


def checked_aux(aux: Any) -> Aux:
    """Returns what a problem says of a member, or of several, as JAX arrays by name.

    Raises:
        TypeError: If it is no dictionary of arrays by name.
    """
    if not isinstance(aux, Mapping) or not all(isinstance(name, str) for name in aux):
        raise TypeError(f"aux must be a dictionary of arrays by name, got {aux!r:.200}.")
    return {name: jnp.asarray(value, jnp.result_type(value)) for name, value in aux.items()}


def checked_evaluation(evaluation: Any, population: Population, name: str) -> Evaluation:
    """Returns what the strategy of that name was told as an `Evaluation`, NaN as the worst fitness.

    Raises:
        ValueError: If the fitness does not have one entry per member.
        TypeError: If the fitness is not an array of numbers.
    """
    size = population_size(population)
    if not isinstance(evaluation, Evaluation):
        evaluation = Evaluation.of(evaluation, size)
    fitness = as_fitness(evaluation.fitness, f"{name}.tell")
    if fitness.shape != (size,):
        raise ValueError(
            f"{name}.tell expects fitness of shape ({size},), one value per member of the "
            f"population, got {fitness.shape}."
        )
    if evaluation.done.shape != (size,):
        raise ValueError(f"{name}.tell expects evaluation.done of shape ({size},), got {evaluation.done.shape}.")
    return evaluation._replace(fitness=jnp.where(jnp.isnan(fitness), jnp.inf, fitness))  # NaN counts as the worst
