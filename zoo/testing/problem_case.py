"""A problem under test, with the compiled programs that its checks share."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from zoo.core import Groups, Problem, Solution
from zoo.registry import given_problem

SIZE = 4
GROUPS = Groups.of(SIZE, 2)  # members 0 and 2 are one group, 1 and 3 the other
_SPREAD = 0.01  # of the members around the initial solution


class ProblemCase:
    """One problem, and the compiled programs that its checks share.

    Attributes:
        make: Makes the problem.
        problem: The problem.
    """

    def __init__(self, factory: Any):
        self._factory = factory
        self.problem = self.make()
        self.name = factory if isinstance(factory, str) else type(self.problem).__name__
        self.key = jax.random.key(0)
        self.initial_solution = jax.jit(lambda problem, key: problem.initial_solution(key))
        self.fitness = jax.jit(lambda problem, key, solution: problem.fitness(key, solution))
        self.evaluate = jax.jit(lambda problem, key, population, state: problem.evaluate(key, population, state))
        self.score = jax.jit(lambda problem, key, solution, state: problem.evaluate_score(key, solution, state))

    def make(self) -> Problem:
        """Makes the problem; see the attribute."""
        factory: Any = self._factory
        problem = given_problem(factory) if isinstance(factory, (str, Mapping, Problem)) else factory()
        if not isinstance(problem, Problem):
            raise TypeError(f"factory must make a zoo.Problem, got {type(problem).__name__}.")
        return problem

    @functools.cached_property
    def solution(self) -> Solution:
        """The initial solution for the first key."""
        return self.initial_solution(self.problem, self.key)

    @functools.cached_property
    def population(self) -> Any:
        """Four members around the initial solution. The members of a group are equal."""
        keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(self.solution))))

        def members(x: jax.Array) -> jax.Array:
            noise = _SPREAD * jax.random.normal(next(keys), (2, *jnp.shape(x)))
            return jnp.tile(x[None] + noise.astype(x.dtype), (2, *[1] * jnp.ndim(x)))

        return jax.tree.map(members, self.solution)

    @functools.cached_property
    def state(self) -> Any:
        """The initial state of the problem for two groups of two members."""
        return jax.jit(lambda problem, solution: problem.init(self.key, GROUPS, solution))(self.problem, self.solution)

    @functools.cached_property
    def evaluation(self) -> Any:
        """What `evaluate` says of the population, and the new state."""
        return self.evaluate(self.problem, self.key, self.population, self.state)
