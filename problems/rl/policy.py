"""What problems of control share: a solution is the parameters of a network that chooses actions."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from zoo.core import Problem, Solution
from zoo.problems.networks import Network


class PolicyProblem(Problem):
    """Base of problems that are controlled by a network; a subclass says by which, for observations of which size."""

    headline = "return"
    maximize = True
    namespace_field: ClassVar[str] = "environment"

    @property
    @abc.abstractmethod
    def _network(self) -> Network: ...

    @property
    @abc.abstractmethod
    def _observation_size(self) -> int: ...

    @property
    def suggestions(self) -> Mapping[str, Any]:
        """Settings that solve CartPole and gymnax's Pendulum."""
        return {"sigma": 0.2, "learning_rate": 0.05}

    @property
    def suggested_num_steps(self) -> int:
        """A million environment steps."""
        return 1_000_000

    @property
    def network_and_inputs(self) -> tuple[Network, jax.Array]:
        """The network, and inputs of the shape and type that it takes, `[1, observation_size]`."""
        return self._network, jnp.zeros((1, self._observation_size))

    def initial_solution(self, key: jax.Array) -> Solution:
        """Returns the network's initial parameters."""
        network, inputs = self.network_and_inputs
        return network.init(key, inputs)
