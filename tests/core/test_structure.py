"""Settings in the structure of a solution: which ones are accepted, and the errors for the others."""

import re
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.core import checks, fit_structure, spread_over

KEY = jax.random.key(0)
START = {"w": jnp.asarray([0.2, -0.4]), "b": jnp.asarray(0.1)}
LISTS = {"w": [0.1, 0.2], "b": 0.3}
ARRAYS = {"w": np.asarray([0.1, 0.2]), "b": 0.3}


def test_a_list_of_numbers_stands_for_an_array():
    solution = {"m": jnp.zeros((2, 2)), "each": [jnp.zeros(()), jnp.zeros(2)], "none": None}
    given = {"m": [[1.0, 2.0], (3.0, 4.0)], "each": [0.5, [0.1, 0.2]], "none": 7.0}
    fitted = spread_over(given, solution)
    np.testing.assert_array_equal(fitted["m"], [[1, 2], [3, 4]])
    np.testing.assert_array_equal(fitted["each"][0], 0.5)
    np.testing.assert_allclose(fitted["each"][1], [0.1, 0.2], rtol=1e-6)
    assert fitted["none"] is None
    assert spread_over([0.1, 0.2], [jnp.zeros(3), jnp.zeros(1)])[0].tolist() == [np.float32(0.1)] * 3
    traced = jax.jit(lambda x: spread_over({"w": [x, 2 * x], "b": x}, START))(0.5)
    np.testing.assert_array_equal(traced["w"], [0.5, 1.0])


@pytest.mark.parametrize("id", ["snes", "cma_es"])
def test_lists_within_a_spread(id):
    strategies = [zoo.make_strategy(id, population_size=4, sigma=sigma) for sigma in (LISTS, ARRAYS)]
    one, other = (strategy.std(strategy.init(KEY, START)) for strategy in strategies)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("wrapper", [{"id": "frozen", "frozen": "b"}, {"id": "hybrid", "es_leaves": "w"}])
def test_a_spread_of_the_whole_solution_for_a_base_that_searches_some_leaves(wrapper):
    stds = []
    for sigma in (LISTS, {**ARRAYS, "b": 5.0}):
        strategy = zoo.make_strategy(wrapper, base={"id": "snes", "sigma": sigma}, population_size=4)
        stds.append(strategy.std(strategy.init(KEY, START)))
    np.testing.assert_allclose(stds[0]["w"], [0.1, 0.2], rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, *stds)
    assert stds[0]["b"] == 0


@pytest.mark.parametrize("lower", [[-0.3, -0.5], (-0.3, -0.5)])
def test_lists_as_bounds(lower):
    ask = jax.jit(lambda strategy: strategy.ask(KEY, strategy.init(KEY, jnp.asarray([-0.2, 0.3])))[0])
    one = ask(zoo.make_strategy("bounded", base="snes", population_size=4, lower=lower, upper=[0.0, 0.5]))
    lower, upper = np.asarray([-0.3, -0.5]), np.asarray([0.0, 0.5])
    other = ask(zoo.make_strategy("bounded", base="snes", population_size=4, lower=lower, upper=upper))
    np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"Bounded\.lower must be below Bounded\.upper, got 1 and 0"):
        zoo.make_strategy("bounded", lower=[-1.0, 1.0], upper=[1.0, 0.0])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"b": 0.3}, "have the structure of the solution: expected shape (2,) in w, got only b."),
        ({"w": [0.1, 0.2, 0.3], "b": 1.0}, "broadcast to the solution: expected shape (2,) in w, got (3,)."),
        ({"w": [[0.1], [0.1, 0.2]], "b": 1.0}, "broadcast to the solution: expected shape (2,) in w, got a list."),
        ({"w": {"a": 1.0}, "b": 1.0}, "broadcast to the solution: expected shape (2,) in w, got a dict."),
        (
            {**LISTS, "c": 1.0},
            "have the structure of the solution: expected only b, w, got shape () in c.",
        ),
        ([0.1, 0.2], "have the structure of the solution: expected a dict, got a list."),
        (np.ones(3), "have the structure of the solution: expected a dict, got shape (3,)."),
        (types.SimpleNamespace(w=1.0), "have the structure of the solution: expected a dict, got shape ()."),
    ],
)
def test_what_does_not_fit_is_named(given, words):
    with pytest.raises(ValueError, match=f"^{re.escape(f'SNES.sigma must {words}')}$"):
        fit_structure("SNES.sigma", given, START)


def test_exact_shapes_are_asked_for():
    mask = {"w": [True, False], "b": np.asarray(True)}
    with pytest.raises(ValueError, match=r"expected shape \(2,\) in w, got a list. Make it an array, as by np.asarray"):
        fit_structure("mask", mask, START, exact=True)
    with pytest.raises(ValueError, match=r"expected None in c, got shape \(\)"):
        fit_structure("x", {"c": 1.0}, {"c": None}, exact=True)


def test_ids_may_be_in_any_mapping():
    frozen = types.MappingProxyType
    strategy = zoo.make_strategy("bounded", base=frozen({"id": "snes", "sigma": 0.7}))
    assert strategy.base.sigma == 0.7
    problem = zoo.make_problem("blackbox/sphere")
    strategy = zoo.make_strategy("bounded", base=frozen({"id": "snes"}), problem=problem)
    assert strategy.base.sigma == zoo.make_strategy("snes", problem=problem).sigma
    strategy = zoo.make_strategy("open_es", perturbation=frozen({"id": "low_rank", "rank": 3}))
    assert strategy.perturbation.rank == 3


def test_bounds_beyond_the_range_of_half_precision():
    strategy = zoo.make_strategy(
        "bounded", base="snes", population_size=4, lower=-1e6, upper={"w": [1e6, 1.0], "b": 1e9}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strategy.init(KEY, jax.tree.map(lambda x: x.astype(jnp.float16), START))


def test_a_strategy_is_rebuilt_without_numpy(monkeypatch):
    """Rebuilding uses no NumPy, because it happens in every dispatch of a program and must take microseconds."""
    leaves, structure = jax.tree.flatten(zoo.make_strategy("open_es"))
    monkeypatch.setattr(checks, "np", None)
    assert jax.tree.unflatten(structure, leaves).sigma == 0.1
