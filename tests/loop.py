"""The loop of the README, as the conformance tests run it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

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


class Loop(NamedTuple):
    state: Any
    problem_state: Any


def start(strategy, problem, key, solution=None):
    key_solution, key_init, key_problem = jax.random.split(key, 3)
    solution = problem.initial_solution(key_solution) if solution is None else solution
    state = strategy.init(key_init, solution)
    return Loop(state, problem.init(key_problem, strategy.groups, solution))


def generation(strategy, problem, loop, key):
    """One generation of the loop that never changes."""
    key_ask, key_evaluate = jax.random.split(key)
    surrogate = problem.surrogate_gradient(key_evaluate, loop.problem_state)
    population, state = strategy.ask(key_ask, loop.state, surrogate)
    evaluation, problem_state = problem.evaluate(key_evaluate, population, loop.problem_state)
    state = strategy.tell(state, population, evaluation)
    return Loop(state, problem_state), evaluation.fitness


def signature(tree):
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(x.shape, x.dtype, getattr(x, "weak_type", False)) for x in map(jnp.asarray, leaves)]


def is_finite(tree):
    return all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating))
