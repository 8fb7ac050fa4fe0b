"""What strategies share that carry the derivative of inner states forward, in place of going back through windows."""

import abc

import jax
import jax.numpy as jnp

from zoo.core import Evaluation, Groups, Population, Sensitivity, Solution, State
from zoo.strategies.gradient.workers import WorkerStrategy


class ForwardStrategy(WorkerStrategy):
    """Base of strategies that descend `Evaluation.gradient`; a subclass says which `Sensitivity` computes it."""

    @property
    @abc.abstractmethod
    def sensitivity(self) -> Sensitivity:
        """How the problem follows the derivative of each worker's inner state."""

    @property
    def groups(self) -> Groups:
        """The groups: each worker by itself, with its derivative followed."""
        return super().groups._replace(sensitivity=self.sensitivity)

    def estimate(self, state: State, population: Population, evaluation: Evaluation) -> Solution:
        """Returns the mean of the workers' gradients.

        Raises:
            TypeError: If the evaluation has no gradient.
        """
        if evaluation.gradient is None:
            raise TypeError(
                f"{type(self).__name__} descends Evaluation.gradient, but this evaluation has none. Initialise the "
                "problem with the groups of this strategy: problem.init(key, strategy.groups, solution)."
            )
        return jax.tree.map(lambda g: jnp.mean(g, axis=0), evaluation.gradient)
