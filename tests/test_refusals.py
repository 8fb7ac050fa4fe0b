"""Calls that are refused before anything is computed. One line says what was expected, and what to do."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo

START = np.ones(2)
SPHERE = "blackbox/sphere"
TEN = np.ones(10)


def norm_in_numpy(x):
    return np.linalg.norm(x)


def branches(x):
    return x[0] if x[0] > 0 else -x[0]


def root(x):
    return math.sqrt(x[0])


CALLS = {
    "target is text": (lambda: zoo.run("snes", SPHERE, target="0"), TypeError, "target must be a number"),
    "target is NaN": (lambda: zoo.minimize(jnp.sum, START, target=np.nan), ValueError, "target must be a number"),
    "target is complex": (lambda: zoo.run("snes", SPHERE, target=1j), TypeError, "target must be a number"),
    "target of an optimizer": (lambda: zoo.Optimizer("snes", START, target="0"), TypeError, "target must be a number"),
    "tolerance": (
        lambda: zoo.Optimizer("snes", START, stop=zoo.Converged(tol_x="0")),
        TypeError,
        "Converged.tol_x must be a number, got '0'",
    ),
    "evaluations": (lambda: zoo.Optimizer("snes", START, max_evaluations=2.5), TypeError, "a whole number, got 2.5"),
    "no evaluations": (
        lambda: zoo.Optimizer("snes", START, max_evaluations=0),
        ValueError,
        "must be at least 1, got 0",
    ),
    "checkpoint is empty": (lambda: zoo.run("snes", SPHERE, checkpoint=""), ValueError, "got an empty text"),
    "checkpoint is a number": (lambda: zoo.run("snes", SPHERE, checkpoint=3), TypeError, "must be a folder"),
    "out is empty": (lambda: zoo.benchmark("snes", SPHERE, out=""), ValueError, "got an empty text"),
    "no run": (lambda: zoo.load_run(""), ValueError, "got an empty text"),
    "no results": (lambda: zoo.Results.load(b"x"), TypeError, "must be a folder"),
    "no ticket": (lambda: zoo.load_ticket("", SPHERE), ValueError, "got an empty text"),
    "strategy is no factory": (lambda: zoo.register_strategy("x", 3), TypeError, "is registered by a class"),
    "spec without a module": (lambda: zoo.register_problem("x", "Bowl"), ValueError, "such as 'my_package.my_module:"),
    "mesh of nothing": (lambda: zoo.population_mesh([]), ValueError, "population_mesh() takes all"),
    "mesh of text": (lambda: zoo.population_mesh("cpu"), ValueError, "population_mesh expects devices"),
    "label is a number": (
        lambda: zoo.benchmark({1: "snes"}, SPHERE),
        TypeError,
        "label of a strategy must be a non-empty text",
    ),
    "label is empty": (
        lambda: zoo.benchmark("snes", {"": SPHERE}),
        TypeError,
        "label of a problem must be a non-empty text",
    ),
    "no list": (lambda: zoo.benchmark(3, SPHERE), TypeError, "expects a list of strategy ids"),
    "samples": (
        lambda: zoo.flatness(SPHERE, TEN, num_samples=1.5),
        TypeError,
        "a whole number",
    ),
    "sigma of samples": (
        lambda: zoo.flatness(SPHERE, TEN, sigmas=["a"]),
        TypeError,
        "sigmas must be a number",
    ),
    "points": (
        lambda: zoo.interpolate(SPHERE, TEN, TEN, num_points=1),
        ValueError,
        "least 2",
    ),
    "estimates": (lambda: zoo.estimator_statistics("open_es", SPHERE, num_samples=2.0), TypeError, "whole"),
    "NumPy": (lambda: zoo.minimize(norm_in_numpy, START), TypeError, "norm_in_numpy cannot be traced by JAX"),
    "NumPy with a key": (
        lambda: zoo.minimize(lambda key, x: norm_in_numpy(x), START, takes_key=True, num_generations=1),
        TypeError,
        "zoo.from_python(fn, solution)",
    ),
    "a branch": (lambda: zoo.minimize(branches, START), TypeError, "jnp.where"),
    "a number": (lambda: zoo.minimize(root, START), TypeError, "zoo.from_python(fn, solution)"),
    "a problem": (lambda: zoo.minimize(zoo.make_problem(SPHERE), START), TypeError, "zoo.run(strategy, problem)"),
    "an id for a function": (lambda: zoo.minimize(SPHERE, START), TypeError, "zoo.run(strategy, problem)"),
    "bounds of minimize": (lambda: zoo.minimize(jnp.sum, START, bounds=(0, 1)), TypeError, '"base": "cma_es", "lower"'),
    "bounds of run": (lambda: zoo.run("snes", SPHERE, lower=0), TypeError, "run has no argument 'lower'. The wrapper"),
    "bounds of a benchmark": (lambda: zoo.benchmark("snes", SPHERE, upper=0), TypeError, "The wrapper `bounded`"),
    "bounds of a strategy": (lambda: zoo.make_strategy("snes", upper=1), TypeError, '"base": "snes", "lower"'),
    "bounds of an optimizer": (lambda: zoo.Optimizer("snes", START, bounds=1), TypeError, '"base": "snes", "lower"'),
    "bounds of bounded": (lambda: zoo.make_strategy("bounded", bounds=1), TypeError, "Use `lower` and `upper`."),
    "a setting of run": (lambda: zoo.run("snes", SPHERE, sigma=1), TypeError, '{"id": "cma_es", "sigma": 0.5}'),
    "an argument of run": (lambda: zoo.run("snes", SPHERE, num_step=1), TypeError, "Did you mean 'num_steps'?"),
    "an argument of a loader": (lambda: zoo.load_ticket("x", SPHERE, y=1), TypeError, "It has folder"),
}


@pytest.mark.parametrize("call", CALLS)
def test_refused(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an empty folder name would mean this folder
    fn, error, words = CALLS[call]
    with pytest.raises(error) as raised:
        fn()
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_the_way_out_of_numpy_works():
    result = zoo.run("snes", zoo.from_python(norm_in_numpy, START), num_generations=2)
    assert np.isfinite(result.best_fitness)


def test_an_unknown_metric():
    results = zoo.benchmark("snes", "blackbox/sphere", num_seeds=1, num_steps=10, num_scores=1, progress=False)
    assert results.scores("snes", "blackbox/sphere", "fitness").shape == (1,)
    for metric in ("fitnes", "", 3):
        with pytest.raises(KeyError, match=r"No metric .* It has \['fitness'\]"):
            results.scores("snes", "blackbox/sphere", metric)


def test_a_spread_has_no_single_reference():
    strategy = zoo.make_strategy("pgpe", sigma=jnp.ones(10))
    with pytest.raises(ValueError, match=r"has a sigma for each parameter.*pass sigma="):
        zoo.estimator_statistics(strategy, "blackbox/sphere", num_samples=2, progress=False)


def test_a_mesh_of_devices():
    for devices in (jax.devices(), np.array(jax.devices()), 1, None):
        assert zoo.population_mesh(devices).size >= 1
