"""Initial spreads for each parameter: a search of scaled parameters, whichever strategy it is."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.core import spread_over
from zoo.core.population import materialize

SIZE = 6
SPREAD = {"w": jnp.array([0.01, 3.0, 20.0]), "b": 0.5}
MEAN = math.exp(np.mean(np.log([0.01, 3.0, 20.0, 0.5])))
START = {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.asarray([0.7])}
HAVE_SPREADS = [
    "cma_es",
    "cr_fm_nes",
    "de",
    "lm_ma_es",
    "lra_cma_es",
    "ma_es",
    "one_plus_one_es",
    "pgpe",
    "pso",
    "pycma",
    "random_search",
    "sep_cma_es",
    "simple_ga",
    "snes",
    "xnes",
]


def make(id, sigma, **settings):
    if id == "pgpe":
        settings = {"learning_rate": 1.0, "optimizer": "sgd", **settings}  # adam's steps would not be scaled
    return zoo.make_strategy(id, population_size=SIZE, sigma=sigma, **settings)


def bowl(x):
    """Far from round, so that ranks hang on no rounding."""
    return jnp.sum((x["w"] - 1) ** 2 * jnp.array([1.0, 3.0, 7.0])) + jnp.sum(jnp.abs(x["b"] + 2))


def scaled(x, units):
    return jax.tree.map(jnp.multiply, x, units)


@functools.partial(jax.jit, static_argnames="num_generations")
def search(strategy, start, units, num_generations=8):
    """The first deviations, the members, the mean and the last deviations of a search of f(units * x), of units * x."""

    def generation(state, key):
        population, state = strategy.ask(key, state)
        population = materialize(population)
        shown = scaled(population, jax.tree.map(lambda u: u[None], units))
        return strategy.tell(state, population, zoo.map_members(bowl, shown)), shown

    state = strategy.init(jax.random.key(1), start)
    first = strategy.std(state)
    state, members = jax.lax.scan(generation, state, jax.random.split(jax.random.key(0), num_generations))
    return scaled(first, units), members, scaled(strategy.mean(state), units), scaled(strategy.std(state), units)


@pytest.mark.parametrize("id", HAVE_SPREADS)
def test_a_spread_is_a_scaling_of_the_parameters(id):
    """A search of f(x) with spread s is that of f(u x) with one step size, which starts at m / u, where s = sigma u."""
    spread = spread_over(SPREAD, START)
    units = jax.tree.map(lambda s: s / MEAN, spread)
    ones = jax.tree.map(jnp.ones_like, units)
    even = {"w": jnp.full(3, MEAN), "b": MEAN}  # for each parameter as well, so that both are one program
    found = search(make(id, SPREAD), START, ones)
    expected = search(make(id, even), jax.tree.map(jnp.divide, START, units), units)
    for name, s in spread.items():
        np.testing.assert_allclose(found[0][name], s, rtol=1e-4)
        for one, other in zip(found, expected, strict=True):
            one, other, s = (np.asarray(x) for x in (one[name], other[name], s))
            np.testing.assert_allclose(one / s, other / s, rtol=1e-3, atol=1e-3)
