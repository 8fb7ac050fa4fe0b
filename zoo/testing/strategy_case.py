"""A strategy under test, with the compiled programs that its checks share: compiling takes nearly all of the time."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core import Problem, Strategy, materialize
from zoo.registry import given_strategy
from zoo.testing.examples import example_problems
from zoo.testing.loop import Loop, generation, start, told, with_settings

SIZE = 6  # whole pairs, and whole triples
SOLUTION = {"w": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "b": np.float32(0.5)}


class StrategyCase:
    """One strategy, and the compiled programs that its checks share.

    Attributes:
        make: Makes the strategy with the given settings, and with six members if no size is given.
        strategy: The strategy with six members.
        thorough: Whether all problems are run. Without it, those other than "unrolled" are only traced.
    """

    def __init__(
        self,
        factory: Any,
        *,
        problems: Mapping[str, Problem] | None = None,
        reaches: float = 0.01,
        std_per_sigma: float = 1.0,
        thorough: bool = True,
    ):
        self._factory = factory
        self.problems = example_problems() if problems is None else dict(problems)
        if not {"function", "unrolled"} <= self.problems.keys():
            raise ValueError(f"problems needs the entries 'function' and 'unrolled', got {sorted(self.problems)}.")
        self.reaches, self.std_per_sigma, self.thorough = reaches, std_per_sigma, thorough
        self.strategy = self.make()
        if not isinstance(self.strategy, Strategy):
            raise TypeError(f"factory must make a zoo.Strategy, got {type(self.strategy).__name__}.")
        self.name = factory if isinstance(factory, str) else type(self.strategy).__name__
        self.key = jax.random.key(0)
        self.num_traces = 0
        self.init = jax.jit(self.strategy.init)
        self.generation = jax.jit(self.one_generation)
        self.start = jax.jit(start)
        self.train = jax.jit(self.generations)

    def make(self, **settings: Any) -> Any:
        """Makes the strategy; see the attribute."""
        settings = {"population_size": SIZE, **settings}
        return self._factory(**settings) if callable(self._factory) else given_strategy(self._factory, settings, "")

    @functools.cached_property
    def state(self) -> Any:
        """The initial state on `SOLUTION`."""
        return self.init(self.key, SOLUTION)

    @functools.cached_property
    def std(self) -> Any:
        """The initial standard deviation, in the structure of `SOLUTION`."""
        return jax.jit(self.strategy.std)(self.state)

    @functools.cached_property
    def samples(self) -> bool:
        """Whether the strategy draws members around its mean. Gradient descent does not: its std is zero."""
        return any(np.any(np.asarray(x) != 0) for x in jax.tree.leaves(self.std))

    def one_generation(self, state: Any, key: jax.Array, fitness: Any) -> tuple[Any, Any, Any]:
        """Returns the members asked for on `SOLUTION`, the state after the given fitness was told, its mean and std."""
        population, state = self.strategy.ask(key, state, jax.grad(quadratic))
        state = self.strategy.tell(state, population, told(self.strategy, population, fitness, quadratic))
        return materialize(population), state, (self.strategy.mean(state), self.strategy.std(state))

    def generations(self, strategy: Strategy, problem: Problem, loop: Loop, keys: jax.Array) -> tuple[Loop, Any, Any]:
        """Runs the loop that never changes, one generation per key; returns it, all fitness, and mean and std."""
        self.num_traces += 1
        loop, fitness = jax.lax.scan(lambda carry, k: generation(strategy, problem, carry, k), loop, keys)
        return loop, fitness, (strategy.mean(loop.state), strategy.std(loop.state))

    def initial_solution(self, family: str) -> Any:
        """Returns the initial solution of a problem."""
        return _initial_solution(self.problems[family], self.key)

    def swept(self, value: float) -> Any:
        """Returns the strategy with another value of a continuous setting."""
        return with_settings(self.strategy, **{"sigma" if self.samples else "learning_rate": value})


_initial_solution = jax.jit(lambda problem, key: problem.initial_solution(key))


def quadratic(x: Any, target: Any = 0.25) -> jax.Array:
    """Returns the squared distance of a solution to a target."""
    return functools.reduce(jnp.add, [jnp.sum((leaf - target) ** 2) for leaf in jax.tree.leaves(x)])
