"""The result of evaluating a population, and the groups of members that a problem evaluates together."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.fitness import as_fitness
from zoo.core.population import Population, population_size
from zoo.core.sensitivity import Sensitivity

Aux = Mapping[str, jax.Array]
"""Further values that a problem returns for each member, as arrays by name; see `Problem.fitness_and_aux`."""


class Evaluation(NamedTuple):
    """The result of evaluating a population.

    Attributes:
        fitness: `[population_size]`. Lower is better. NaN counts as the worst.
        done: `[population_size]` booleans, true where the member's inner episode ended and was reset. Always true for
            a problem without inner state.
        steps: Scalar. How many problem steps this evaluation took.
        repaired: `[population_size]` booleans, true where a wrapper changed the member after it was drawn, for example
            to keep it within bounds. Such a member is not a sample of the search distribution. `None` means that no
            member was changed.
        aux: Further values of each member by name, each `[population_size, ...]`.
        gradient: An estimate of the derivative of each member's fitness with respect to its solution, in the structure
            of a solution with leaves `[population_size, ...]`. `None` unless the strategy's groups name a
            `Sensitivity`.
    """

    fitness: jax.Array
    done: jax.Array
    steps: jax.Array
    repaired: jax.Array | None = None
    aux: Aux = {}  # noqa: RUF012 - never changed in place
    gradient: Population | None = None

    @classmethod
    def of(cls, fitness: Any, size: int) -> "Evaluation":
        """Returns the evaluation of `size` members that have a fitness and nothing else."""
        return cls(fitness, jnp.ones(size, bool), jnp.asarray(size, jnp.int32))

    def map_gradient(self, fn: Callable[[Population], Population]) -> "Evaluation":
        """Returns the evaluation with `fn` applied to its gradients, if it has any."""
        return self if self.gradient is None else self._replace(gradient=fn(self.gradient))


class Groups(NamedTuple):
    """Which members belong together, and what they require of a problem with inner episodes; see `Strategy.groups`.

    Attributes:
        ids: `[population_size]` integers. Members with the same id get the same data, initial inner state and reset.
        parents: `[population_size]` integers. Each member starts its next window from the inner state of this member,
            which must be in its own group. With `None`, each starts from its own.
        whole_episodes: Whether an evaluation must unroll whole episodes, whatever the problem's window is.
        sensitivity: How the problem follows the derivatives of inner states with respect to the solution, for
            `Evaluation.gradient`. With `None`, it follows none.
    """

    ids: np.ndarray
    parents: np.ndarray | None = None
    whole_episodes: bool = False
    sensitivity: Sensitivity | None = None

    @classmethod
    def of(cls, size: int, group_size: int | None = None) -> "Groups":
        """Returns groups of `group_size` members each. With n groups, members i, i + n, i + 2 n, ... form group i.

        Args:
            size: The population size.
            group_size: Members per group; 2 for antithetic pairs. With `None`, all members form one group.
        """
        group_size = group_size or size
        return cls(np.tile(np.arange(size // group_size, dtype=np.int32), group_size))


MAX_STEPS = 2**30
"""The largest count of problem steps in one generation, chosen so that a few generations fit into 32 bits."""


def total_steps(steps: jax.Array) -> jax.Array:
    """Returns the sum of the members' steps, but at most `MAX_STEPS`."""
    is_small = jnp.sum(steps.astype(float)) < MAX_STEPS  # a sum of integers would wrap around
    return jnp.where(is_small, jnp.sum(steps, dtype=jnp.int32), MAX_STEPS)


def checked_aux(aux: Any) -> Aux:
    """Returns the further values of one or several members as JAX arrays by name.

    Raises:
        TypeError: If `aux` is not a dictionary of arrays by name.
    """
    if not isinstance(aux, Mapping) or not all(isinstance(name, str) for name in aux):
        raise TypeError(f"aux must be a dictionary of arrays by name, got {aux!r:.200}.")
    return {name: jnp.asarray(value, jnp.result_type(value)) for name, value in aux.items()}


def zeros_of_aux(fn: Callable[[], Any]) -> Aux:
    """Returns zeros in the shapes and dtypes of the further arrays that a function returns. The function is traced."""
    return {name: jnp.zeros(x.shape, x.dtype) for name, x in jax.eval_shape(lambda: checked_aux(fn())).items()}


def checked_evaluation(evaluation: Any, population: Population, name: str) -> Evaluation:
    """Returns the argument of `Strategy.tell` as an `Evaluation`, with infinity in place of NaN.

    Args:
        evaluation: An `Evaluation`, or an array of fitness.
        population: The population that was evaluated.
        name: The name of the strategy, for messages.

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
