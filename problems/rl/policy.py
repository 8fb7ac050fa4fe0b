"""The base of control problems: a solution is the parameters of a network that chooses actions."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from zoo.core import Problem, Solution
from zoo.problems.networks import Network


class PolicyProblem(Problem):
    """Base of problems that a network controls. A subclass gives the network and the size of observations."""

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
        """Settings that solve CartPole and Pendulum of gymnax."""
        return {"sigma": 0.2, "learning_rate": 0.05}

    @property
    def suggested_num_steps(self) -> int:
        """A million environment steps."""
        return 1_000_000

    @property
    def network_and_inputs(self) -> tuple[Network, jax.Array]:
        """The network, and example inputs `[1, observation_size]` with the right shape and dtype."""
        return self._network, jnp.zeros((1, self._observation_size))

    def initial_solution(self, key: jax.Array) -> Solution:
        """Returns the network's initial parameters."""
        network, inputs = self.network_and_inputs
        return network.init(key, inputs)
