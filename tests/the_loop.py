"""Shared parts of the tests over all strategies: their ids, and jitted `init`, `ask` and `tell`."""

import jax
import jax.numpy as jnp
import numpy as np

import zoo

# Adapters to other libraries have their own tests.
IDS = [id for id in zoo.list_strategies() if "/" not in id and id != "pycma"]


def samples(strategy):
    """Returns whether a strategy draws members around the mean. All do, except gradient descent."""
    return samples(strategy.base) if hasattr(strategy, "base") else hasattr(strategy, "sigma")


# Without jit, each of these takes a hundred small programs. With jit, one program serves all strategies with the same
# static settings.


@jax.jit
def init(strategy, key, solution):
    return strategy.init(key, solution)


@jax.jit
def ask(strategy, key, state, surrogate=None):
    """Asks for a population. A surrogate must be a `jax.tree_util.Partial`."""
    return strategy.ask(key, state, surrogate)


@jax.jit
def tell(strategy, state, population, evaluation):
    return strategy.tell(state, population, evaluation)


def signature(tree):
    """Returns the structure, and the shape, dtype and weak type of each leaf.

    Takes arrays or `jax.eval_shape` results.
    """
    leaves, structure = jax.tree.flatten(tree)
    leaves = [x if hasattr(x, "dtype") else jnp.asarray(x) for x in leaves]
    return structure, [(x.shape, x.dtype, getattr(x, "weak_type", False)) for x in leaves]


@jax.jit
def initial_solution(problem, key):
    """Makes the initial solution in one program, because a flax network would run operation by operation."""
    return problem.initial_solution(key)


def is_finite(tree):
    """Returns whether all numbers are finite. Uses NumPy, where a new shape is not compiled."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(tree)]
    return all(bool(np.all(np.isfinite(x))) for x in leaves if np.issubdtype(x.dtype, np.floating))


def primitives_around(name, jaxpr, path=()):
    """Yields, for each equation of this primitive, the names of the primitives that enclose it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == name:
            yield path
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from primitives_around(name, inner, (*path, equation.primitive.name))
