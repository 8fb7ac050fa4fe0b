"""Fitness values are converted to one form, wherever they come from."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.core.fitness import as_fitness, on_host

SNES = zoo.make_strategy("snes", population_size=4)


@pytest.fixture(scope="module")
def asked():
    return SNES.ask(jax.random.key(1), SNES.init(jax.random.key(0), jnp.zeros(2)))


@pytest.mark.parametrize(
    "values",
    [
        np.array([2**33, 1, -(2**40), 3]),  # wider than JAX's integers
        np.array([True, False, False, True]),
        [2, 1, 3, 0.5],
        jnp.array([3, 1, 2, 0]),
        jnp.array([True, False, True, True]),
        np.array([1e300, 1, -1e300, 3]),  # beyond the range of the dtype
        np.array([0.5, np.inf, 2, 1], np.float16),
    ],
    ids=str,
)
def test_the_order_is_kept(values, asked):
    population, state = asked
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitness = as_fitness(values, "it")
        mean = SNES.tell(state, population, values).mean
    assert jnp.issubdtype(fitness.dtype, jnp.floating)
    np.testing.assert_array_equal(np.argsort(fitness, stable=True), np.argsort(np.asarray(values), stable=True))
    _, ranks = np.unique(np.asarray(values, np.float64), return_inverse=True)
    expected = SNES.tell(state, population, ranks.astype(np.float32)).mean
    np.testing.assert_array_equal(mean, expected)


@pytest.mark.parametrize(
    "values", [[1 + 1j] * 4, jnp.ones(4, complex), ["1", "2", "3", "4"], [1, 2, 3, None], [[1], [2, 3]]], ids=str
)
def test_what_is_no_real_number_is_refused(values, asked):
    population, state = asked
    with pytest.raises(TypeError, match=r"SNES\.tell expects fitness values that are real numbers, got"):
        SNES.tell(state, population, values)


def test_a_warning_where_values_that_differ_become_equal():
    values = 1e9 + np.arange(4.0)
    with pytest.warns(RuntimeWarning, match="it: fitness values that differ are equal in float32"):
        rounded = on_host(values, "it", np.float32)
    np.testing.assert_array_equal(rounded, np.float32(values))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        on_host(values, "it", np.float64)
        on_host(np.full(4, 1e9 + 1), "it", np.float32)  # they were equal before rounding
    problem = zoo.from_python(lambda x: 1e9 + float(np.sum(x**2)), np.ones(2))
    with pytest.warns(RuntimeWarning, match="'<lambda>': fitness values that differ are equal"):
        zoo.run(SNES, problem, num_generations=1, num_scores=1)


def test_an_objective_that_counts_or_is_complex():
    result = zoo.run(SNES, zoo.from_function(lambda x: jnp.sum(x > 0), jnp.zeros(2)), num_generations=2, num_scores=1)
    assert result.best_fitness == 0
    with pytest.raises(TypeError, match=r"FunctionProblem\.evaluate expects fitness values that are real numbers"):
        zoo.run(SNES, zoo.from_function(lambda x: jax.lax.complex(x[0], x[1]), jnp.zeros(2)), num_generations=2)
