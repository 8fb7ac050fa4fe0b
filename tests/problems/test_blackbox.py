"""The BBOB functions."""

import bbobax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.problem import group_keys

FUNCTIONS = sorted(bbobax.BBOB_PROBLEMS)
NUM_DIMS = 4


def make(function="rastrigin", **settings):
    return zoo.make_problem(f"blackbox/{function}", **{"num_dims": NUM_DIMS, **settings})


def test_all_24_functions_are_listed():
    assert len(FUNCTIONS) == 24
    assert [id for id in zoo.list_problems() if id.startswith("blackbox/")] == [f"blackbox/{f}" for f in FUNCTIONS]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_equals_bbobax_and_is_zero_at_the_optimum(function, key):
    """For two instances: the fitness and the score of the optimum and of another point."""
    bbob = bbobax.BBOB_PROBLEMS[function](num_dims=NUM_DIMS)

    @jax.jit
    def evaluate(problem, parameters, x):
        problem = problem.with_statistics(parameters)
        return problem.fitness(key, x), problem.score(key, x)["fitness"], bbob.evaluate(key, x, parameters).fitness

    values = []
    for instance in (1, 5):
        problem = make(function, instance=instance)
        parameters = bbob.sample(jax.random.key(instance))
        drawn = problem.init_statistics()
        for name in ("x_opt", "r", "q"):
            np.testing.assert_array_equal(getattr(drawn, name), getattr(parameters, name))
        assert drawn.key == parameters.key
        for x in (parameters.x_opt, jnp.array([0.7, -0.4, 1.2, 2.1])):
            fitness, score, expected = evaluate(problem, drawn, x)
            np.testing.assert_allclose(fitness, expected, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(score, expected, rtol=1e-4, atol=1e-6)
            values.append(fitness)
    assert abs(values[0]) < 1e-5
    assert abs(values[2]) < 1e-5
    assert values[1] > 1e-3
    assert values[3] > 1e-3
    assert values[1] != values[3]  # another optimum, another rotation


def test_initial_solution_is_uniform_in_the_box():
    """Mean and variance of a uniform law on [-5, 5] over 2 000 entries, 5 sigma."""
    problem = make(num_dims=20)
    x = np.asarray(jax.vmap(problem.initial_solution)(jax.random.split(jax.random.key(0), 100)))
    assert x.shape == (100, 20)
    assert -5 <= x.min() < -4.9
    assert 4.9 < x.max() <= 5
    variance = 100 / 12
    assert abs(x.mean()) < 5 * np.sqrt(variance / x.size)
    # The fourth central moment of a uniform law is 9/5 of the squared variance.
    assert abs(x.var() - variance) < 5 * variance * np.sqrt((9 / 5 - 1) / x.size)


def test_another_instance_does_not_recompile(key):
    traces = []

    @jax.jit
    def evaluate(problem, x):
        traces.append(1)
        return problem.fitness(key, x)

    x = jnp.ones(NUM_DIMS)
    values = [evaluate(make(instance=i), x) for i in (0, 1, 2)]
    assert len(traces) == 1
    assert len(set(map(float, values))) == 3
    evaluate(make("sphere"), x)
    assert len(traces) == 2  # another function is another program


def test_vmaps_over_instances(key):
    x = jnp.ones(NUM_DIMS)
    stacked = make(instance=jnp.array([0, 3, 7]))
    batched = jax.jit(jax.vmap(lambda problem: problem.fitness(key, x)))(stacked)
    single = jax.jit(lambda problem: problem.fitness(key, x))
    np.testing.assert_allclose(batched, [single(make(instance=i)) for i in (0, 3, 7)], rtol=1e-5)


def test_a_run_draws_the_instance_once(key, monkeypatch):
    draws = []
    sample = bbobax.BBOBProblem.sample

    def counted(self, key):
        draws.append(1)
        return sample(self, key)

    monkeypatch.setattr(bbobax.BBOBProblem, "sample", counted)
    problem = make("sphere", instance=3)
    state = problem.init(key, np.zeros(3, int), jnp.zeros(NUM_DIMS))
    assert len(draws) == 1
    population = jnp.arange(3.0 * NUM_DIMS).reshape(3, NUM_DIMS) / 4
    evaluation, new_state = problem.evaluate(key, population, state)
    score = problem.evaluate_score(key, population[1], new_state)
    gradient = problem.surrogate_gradient(key, state)(population[1])
    assert len(draws) == 1
    np.testing.assert_allclose(evaluation.fitness[1], problem.fitness(key, population[1]), rtol=1e-5)
    np.testing.assert_allclose(score["fitness"], evaluation.fitness[1], rtol=1e-5)
    assert gradient.shape == (NUM_DIMS,)
    # What is drawn is what is used.
    moved = state._replace(statistics=state.statistics.replace(x_opt=population[2]))
    np.testing.assert_allclose(problem.evaluate(key, population, moved)[0].fitness[2], 0, atol=1e-4)


def test_noise_is_shared_by_a_group_and_absent_from_the_score(key):
    problem = make("sphere", noise_model=bbobax.Gaussian.severe(), instance=2)
    plain = make("sphere", instance=2)
    x = jnp.ones(NUM_DIMS)
    groups = np.array([0, 1, 0, 1])
    state = problem.init(key, groups, x)
    fitness = problem.evaluate(key, jnp.stack([x] * 4), state)[0].fitness
    assert fitness[0] == fitness[2]
    assert fitness[1] == fitness[3]
    assert fitness[0] != fitness[1]

    bbob = bbobax.BBOB_PROBLEMS["sphere"](num_dims=NUM_DIMS, noise_model=bbobax.Gaussian.severe())
    parameters = bbob.sample(jax.random.key(2))
    expected = [bbob.evaluate(k, x, parameters).fitness for k in group_keys(key, 2)]
    np.testing.assert_allclose(fitness, np.asarray(expected)[groups], rtol=1e-5)

    exact = plain.fitness(key, x)
    assert not np.any(np.isclose(fitness, exact, rtol=1e-3))
    for k in (key, jax.random.key(1)):
        np.testing.assert_allclose(problem.evaluate_score(k, x, state)["fitness"], exact, rtol=1e-6)


def test_same_problem_in_double_precision(x64):
    problem = make("sphere")
    x = jax.eval_shape(problem.initial_solution, jax.random.key(0))
    assert x.dtype == jax.eval_shape(problem.fitness, jax.random.key(0), x).dtype == np.float64


def test_suggestions_fit_the_search_box():
    problem = make(num_dims=7)
    assert problem.suggestions["sigma"] == 2.0
    assert problem.suggested_num_steps == 7_000
    assert (problem.headline, problem.maximize) == ("fitness", False)


@pytest.mark.parametrize("function", ["spere", "f1", ""])
def test_unknown_function(function):
    from problems.blackbox.bbob import BBOB

    with pytest.raises(ValueError, match=r"BBOB.function must be one of sphere, .*, got '" + function):
        BBOB(function=function)
    with pytest.raises(ValueError, match=rf"Unknown problem 'blackbox/{function}'"):
        zoo.make_problem(f"blackbox/{function}")


@pytest.mark.parametrize("instance", [-1, 1.5, "first", 1.0])
def test_bad_instance(instance):
    with pytest.raises(ValueError, match=r"BBOB.instance must be a whole number of at least 0, got "):
        make(instance=instance)


@pytest.mark.parametrize("num_dims", [1, 0, 2.5])
def test_bad_number_of_dimensions(num_dims):
    with pytest.raises((ValueError, TypeError), match=r"BBOB.num_dims must be (at least 2|a whole number)"):
        make(num_dims=num_dims)
