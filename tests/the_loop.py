"""What the tests over all strategies share: their ids, and the loop of the README."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import zoo


class Decay(zoo.UnrolledProblem):
    """A small unrolled problem: x <- a x + solution, loss (x - 1)^2."""

    horizon: int | None = zoo.static(6)
    window: int | None = zoo.static(2)
    rate: float = zoo.number(0.5)

    def initial_solution(self, key):
        return {"drive": jnp.zeros(2)}

    def reset(self, key):
        return jax.random.normal(key, (2,))

    def step(self, key, solution, inner):
        inner = self.rate * inner + solution["drive"]
        return inner, jnp.sum((inner - 1) ** 2), jnp.asarray(False)


FAMILIES = {
    "function": lambda: zoo.from_function(lambda x: jnp.sum(x["a"] ** 2) + x["b"] ** 2, {"a": jnp.ones(3), "b": 2.0}),
    "blackbox": lambda: zoo.make_problem("blackbox/rastrigin", num_dims=3),
    "supervised": lambda: zoo.make_problem("supervised/digits", hidden=(4,), batch_size=8),
    "rl": lambda: zoo.make_problem("rl/CartPole-v1", hidden=(4,), horizon=20, normalize_observations=True),
    "unrolled": lambda: Decay(),
}


# Adapters to other libraries have tests of their own.
IDS = [id for id in zoo.list_strategies() if "/" not in id and id != "pycma"]


def with_settings(strategy, **settings):
    """The strategy with those of the settings that it has; a wrapper passes them on to its base."""
    if hasattr(strategy, "base"):
        return strategy.replace(base=with_settings(strategy.base, **settings))
    return strategy.replace(**{name: value for name, value in settings.items() if hasattr(strategy, name)})


def samples(strategy):
    """Whether it draws members around the mean, as all but gradient descent do."""
    return samples(strategy.base) if hasattr(strategy, "base") else hasattr(strategy, "sigma")


def told(strategy, population, fitness, fn):
    """What is told of a population: its fitness, and gradients of a function where the strategy asks for them."""
    if strategy.groups.sensitivity is None:
        return fitness
    gradient = zoo.map_members(jax.grad(fn), population)
    size = len(fitness)
    return zoo.Evaluation(fitness, jnp.ones(size, bool), jnp.asarray(size, jnp.int32), gradient=gradient)


class Loop(NamedTuple):
    state: Any
    problem_state: Any


def start(strategy, problem, key, solution=None):
    key_solution, key_init, key_problem = jax.random.split(key, 3)
    solution = problem.initial_solution(key_solution) if solution is None else solution
    state = strategy.init(key_init, solution)
    return Loop(state, problem.init(key_problem, strategy.groups, solution))


# Op by op each of these takes a hundred small programs; this way one serves all strategies of the same static settings.


@jax.jit
def init(strategy, key, solution):
    return strategy.init(key, solution)


@jax.jit
def ask(strategy, key, state, surrogate=None):
    """A surrogate is a `jax.tree_util.Partial`."""
    return strategy.ask(key, state, surrogate)


@jax.jit
def tell(strategy, state, population, evaluation):
    return strategy.tell(state, population, evaluation)


def generation(strategy, problem, loop, key):
    """One generation of the loop that never changes."""
    key_ask, key_evaluate = jax.random.split(key)
    surrogate = problem.surrogate_gradient(key_evaluate, loop.problem_state)
    population, state = strategy.ask(key_ask, loop.state, surrogate)
    evaluation, problem_state = problem.evaluate(key_evaluate, population, loop.problem_state)
    state = strategy.tell(state, population, evaluation)
    return Loop(state, problem_state), evaluation.fitness


def signature(tree):
    """Structure, and shape, dtype and weak type of each leaf, of arrays or of what `jax.eval_shape` returns."""
    leaves, structure = jax.tree.flatten(tree)
    leaves = [x if hasattr(x, "dtype") else jnp.asarray(x) for x in leaves]
    return structure, [(x.shape, x.dtype, getattr(x, "weak_type", False)) for x in leaves]


@jax.jit
def initial_solution(problem, key):
    """In one program: a network of flax makes its own operation by operation."""
    return problem.initial_solution(key)


def is_finite(tree):
    """Whether all is finite; in NumPy, where no shape costs a compilation."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(tree)]
    return all(bool(np.all(np.isfinite(x))) for x in leaves if np.issubdtype(x.dtype, np.floating))


def primitives_around(name, jaxpr, path=()):
    """Yields, for each equation of this primitive, the names of the primitives it is nested in."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == name:
            yield path
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from primitives_around(name, inner, (*path, equation.primitive.name))
