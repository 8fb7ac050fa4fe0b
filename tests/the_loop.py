"""What the tests over all strategies share: their ids, and jitted `init`, `ask` and `tell`."""

import jax
import jax.numpy as jnp
import numpy as np

import zoo

# Adapters to other libraries have tests of their own.
IDS = [id for id in zoo.list_strategies() if "/" not in id and id != "pycma"]


def samples(strategy):
    """Whether it draws members around the mean, as all but gradient descent do."""
    return samples(strategy.base) if hasattr(strategy, "base") else hasattr(strategy, "sigma")


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
