"""Tests all unrolled problems together: what the papers say, and what the library promises."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from tests.problems.unrolled.examples import INFLUENCE, LEARNED, LORENZ, MLP, SMALL, TOY, fitness_of, jit, make_small
from tests.the_loop import is_finite, signature
from zoo.cli import _parse_settings
from zoo.core.promotion import promotion_of_others
from zoo.testing.loop import generation, start

# What the papers say


@pytest.mark.parametrize(
    ("id", "settings", "sigma"),
    [
        (LORENZ, {"horizon": 2000, "window": 100, "objective": "mean"}, 0.04),
        (INFLUENCE, {"horizon": None, "window": 1}, 0.1),
        (TOY, {"horizon": 100, "window": 10, "objective": "sum"}, 0.3),
        (MLP, {"horizon": 5000, "batch_size": 100, "hidden": (100, 100), "activation": "relu"}, 0.1),
        (LEARNED, {"horizon": 1000, "window": 1, "objective": "mean"}, 0.01),
        (LEARNED, {"hidden": (32, 32, 32), "activation": "gelu", "batch_size": 128, "held_out": 0.2}, 0.01),
    ],
)
def test_defaults_are_those_of_the_papers(id, settings, sigma):
    problem = zoo.make_problem(id)
    assert {name: getattr(problem, name) for name in settings} == settings
    assert problem.suggestions["sigma"] == sigma
    assert problem.headline == "objective"
    assert problem.maximize is False


@pytest.mark.parametrize(
    ("id", "expected"), [(TOY, optax.adam(1e-2, b1=0.99)), (MLP, optax.adam(1e-2)), (LEARNED, optax.adam(3e-4))]
)
def test_optimizers_of_the_learning_to_learn_problems_are_those_of_the_papers(id, expected):
    strategy = zoo.make_strategy("nres", problem=zoo.make_problem(id), population_size=2)
    updates = []
    for transformation in (strategy.transformation_at(0), expected):
        state = transformation.init(jnp.zeros(()))
        for gradient in (1.0, -0.3, 0.2):
            with promotion_of_others():
                update, state = transformation.update(jnp.asarray(gradient), state)
        updates.append(float(update))
    assert updates[0] == updates[1]


# What the library promises


def test_all_ids_are_tested():
    assert sorted(SMALL) == [id for id in zoo.list_problems() if id.startswith("unrolled/")]


@jit
def initial_solution_of(problem, key):
    return problem.initial_solution(key)


@jit
def play(strategy, problem, key, solution):
    """Runs three generations of the loop. Returns the states before and after, and the fitness of each."""
    key_start, key_loop = jax.random.split(key)
    before = start(strategy, problem, key_start, solution)
    body = functools.partial(generation, strategy, problem)
    return before, *jax.lax.scan(body, before, jax.random.split(key_loop, 3))


def ones(x):
    return jnp.sum(jnp.square(x - 1))


def make_simple(id):
    """Makes a problem with a task that compiles quickly. Digits have their own tests."""
    task = zoo.from_function(ones, jnp.array([0.5, 0.3]))
    return zoo.make_problem(id, **SMALL[id], **({"task": task, "outer_task": task} if id in (MLP, LEARNED) else {}))


@pytest.mark.parametrize(("name", "size"), [("nres", 4), ("pes", 2), ("tes", 3), ("tbptt", 1)])
@pytest.mark.parametrize("id", SMALL)
def test_online_strategies_run_on_every_problem(id, name, size, key):
    problem = make_simple(id)
    strategy = zoo.make_strategy(name, problem=problem, population_size=size, learning_rate=0.01)
    solution = initial_solution_of(problem, key)
    before, after, fitness = play(strategy, problem, key, solution)
    assert signature(after) == signature(before)
    assert fitness.shape == (3, size)
    assert is_finite((after, fitness))
    moved = jax.tree.map(lambda x, y: bool(np.any(x != y)), strategy.mean(after.state), solution)
    assert any(jax.tree.leaves(moved))
    if name == "tbptt":  # it replaces a gradient that is not finite by zero
        assert any(np.any(np.asarray(g) != 0) for g in jax.tree.leaves(after.state.gradient))


@pytest.mark.parametrize("id", SMALL)
def test_numbers_never_recompile(id, key):
    problem = make_simple(id)
    solution = initial_solution_of(problem, key)
    expected = fitness_of(problem, key, solution)
    num_programs = fitness_of._cache_size()
    leaves, structure = jax.tree.flatten(problem)
    assert fitness_of(jax.tree.unflatten(structure, leaves), key, solution) == expected
    numbers = [f.name for f in dataclasses.fields(problem) if isinstance(getattr(problem, f.name), (float, tuple))]
    numbers = [name for name in numbers if name not in ("hidden", "optimizer_hidden")]
    assert numbers
    for name in numbers:
        changed = problem.replace(**{name: jax.tree.map(lambda x: 1.1 * x + 0.01, getattr(problem, name))})
        assert np.isfinite(fitness_of(changed, key, solution)), name
    assert fitness_of._cache_size() == num_programs


@pytest.mark.parametrize("id", SMALL)
def test_a_problem_goes_through_jit_as_a_pytree(id):
    """A problem passes through jit with its data, its task and its held-out data."""
    problem = make_small(id)
    through = jax.jit(lambda p: p)(problem)
    assert type(through) is type(problem)
    assert jax.tree.structure(through) == jax.tree.structure(problem)
    assert hash(jax.tree.structure(through)) == hash(jax.tree.structure(make_small(id)))
    for x, y in zip(jax.tree.leaves(through), jax.tree.leaves(problem), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)
    if id == LEARNED:
        assert through.outer_task.train_inputs.shape == (287, 8, 8, 1)


@pytest.mark.parametrize(
    ("id", "settings"),
    [
        (LORENZ, ["start=(0, 1.5, 2)", "r=30", "horizon=50", "window=none", "objective=sum"]),
        (INFLUENCE, ["num_dims=5", "num_positive=2", "horizon=10", "initial_theta=1"]),
        (TOY, ["start=2,3", "initial_log_rates=(-1, 0)", "num_score_episodes=2"]),
        (MLP, ["hidden=8", "batch_size=4", "task=supervised/digits", "seed=none", "initial_theta=(0, 1)"]),
        (LEARNED, ["hidden=(3,4)", "momenta=(0.5,)", "time_scales=(1, 10)", "optimizer_hidden=(4,)", "held_out=0.1"]),
    ],
)
def test_settings_come_as_the_command_line_parses_them(id, settings, key):
    parsed = _parse_settings(settings)
    problem = zoo.make_problem(id, **parsed)
    solution = jax.eval_shape(problem.initial_solution, key)
    assert jax.eval_shape(problem.fitness, key, solution).shape == ()
    assert jax.eval_shape(problem.score, key, solution)["objective"].shape == ()
    for name, value in parsed.items():
        if name != "task":
            np.testing.assert_array_equal(getattr(problem, name), value)
