"""Shared parts of the tests of the loop: problems, strategies, a budget, and comparisons of runs."""

import jax
import jax.numpy as jnp
import numpy as np

import zoo
from zoo.core.keys import is_key

TRACES = []


def bowl(x):
    TRACES.append(1)
    return jnp.sum((x - 1) ** 2)


def noisy_bowl(key, x, center):
    return jnp.sum((x["a"] - center) ** 2) + 0.1 * jax.random.normal(key, ())


BOWL = zoo.from_function(bowl, jnp.zeros(3))
NOISY = zoo.from_function(noisy_bowl, {"a": jnp.zeros(2)}, data=(jnp.array([1.0, 2.0]),), takes_key=True)
SNES = zoo.make_strategy("snes", population_size=6, sigma=0.2)
SEARCH = zoo.make_strategy("random_search", population_size=2)
PAIRS = zoo.make_strategy("open_es", population_size=4, shaping="none")
# With this budget, all segments have two generations, so one compiled program serves many tests.
BUDGET = {"num_generations": 10, "num_scores": 5}


class Walk(zoo.UnrolledProblem):
    """A problem with inner states, random keys, episodes that end at random, and statistics."""

    horizon: int | None = zoo.static(6)
    window: int | None = zoo.static(2)
    hazard: float = zoo.number(0.3)

    def initial_solution(self, key):
        return {"drift": jnp.zeros(2), "offset": jnp.zeros(())}

    def reset(self, key):
        return {"key": key, "x": jax.random.uniform(key, (2,))}

    def step(self, key, solution, inner):
        noise = jax.random.uniform(inner["key"], (3,))
        x = inner["x"] + solution["drift"] + 0.1 * noise[:2]
        loss = jnp.sum((x - solution["offset"]) ** 2)
        return {"key": jax.random.fold_in(inner["key"], 1), "x": x}, loss, noise[2] < self.hazard

    @property
    def differentiable(self):
        return False

    def init_statistics(self):
        return {"sum": jnp.zeros(2)}

    def pool_statistics(self, statistics, inner):
        return {"sum": statistics["sum"] + jnp.sum(inner["x"], axis=0)}, inner


def plain(tree):
    return [
        np.asarray(jax.random.key_data(x) if is_key(x) else x)  # pyright: ignore[reportArgumentType]
        for x in jax.tree.leaves(tree)
    ]


def assert_same(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for x, y in zip(plain(tree), plain(other), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def assert_same_scores(scores, other):
    assert_same({**scores, "seconds": 0}, {**other, "seconds": 0})


def assert_same_run(result, other):
    """Checks that two runs are bit-identical, apart from the seconds."""
    assert_same(result.state, other.state)
    assert_same(result.problem_state, other.problem_state)
    assert_same(result.mean, other.mean)
    assert_same(result.best_solution, other.best_solution)
    assert result.best_fitness == other.best_fitness
    assert result.metrics == other.metrics
    assert_same(result.history, other.history)
    assert_same_scores(result.scores, other.scores)
    assert result.stopped_by == other.stopped_by


def attempt(call, *args, **kwargs):
    """Returns the result of a call and its error. One of them is `None`."""
    try:
        return call(*args, **kwargs), None
    except (ValueError, TypeError, RuntimeError) as error:
        return None, error
