"""A run stores how it was called. Calls that cannot be made again are refused, and saved runs load unchanged."""

import json

import jax
import numpy as np
import optax
import pytest

import zoo
from tests.loop.examples import BOWL, SEARCH, SNES, assert_same, assert_same_run
from zoo.core.keys import as_key
from zoo.loop.call import describe_call, make_call
from zoo.loop.provenance import describe_key, key_from

BALL = zoo.make_problem("blackbox/sphere", num_dims=2)
BUDGET = {"num_generations": 2, "num_scores": 1}


@pytest.fixture
def folder(tmp_path):
    strategy = zoo.make_strategy("snes", problem=BALL, population_size=4)
    zoo.run(strategy, BALL, 2**31 + 7, **BUDGET).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("key", "seed"),
    [
        (0, 0),
        (2**31 - 1, 2**31 - 1),
        (2**31 + 5, None),
        (jax.random.key(5), 5),
        (jax.random.split(jax.random.key(5))[1], None),
        (jax.random.key(1, impl="rbg"), None),
    ],
    ids=str,
)
def test_keys(key, seed):
    described = json.loads(json.dumps(describe_key(as_key(key))))
    assert_same(key_from(described), as_key(key))
    assert isinstance(described, dict) if seed is None else described == seed


@pytest.mark.parametrize("key", [{}, {"generator": "threefry2x32"}, {"generator": "x", "data": [1, 2]}, "a", None, [1]])
def test_keys_that_are_damaged(key):
    with pytest.raises(ValueError, match="Expected a stored random key"):
        key_from(key)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ("snes", "blackbox/sphere"),
        lambda: (zoo.make_strategy("cma_es", population_size=6, sigma=np.float32(0.5)), BALL),
        lambda: (
            zoo.make_strategy("bounded", problem=BALL, base={"id": "cma_es", "sigma": 2.0}, lower=-5.0, upper=5.0),
            BALL,
        ),
        lambda: ("open_es", zoo.make_problem("supervised/digits", hidden=(4,), batch_size=8)),
    ],
    ids=["ids", "settings", "wrapper", "tuple"],
)
def test_what_is_made_by_ids_is_made_again(make):
    strategy, problem = make()
    call = describe_call(strategy, problem, jax.random.key(1), solution=None, num_steps=3)
    made = zoo.registry.resolve(*make_call(json.loads(json.dumps(call)), None, None)[:2])
    expected = zoo.registry.resolve(strategy, problem)
    for one, other in zip(made, expected, strict=True):
        assert jax.tree.structure(one) == jax.tree.structure(other)
        assert_same(one, other)


@pytest.mark.parametrize(
    ("strategy", "problem", "message"),
    [
        (SNES.replace(sigma=0.3), BALL, "The strategy of this run is not in the registry"),
        ("snes", BOWL, "The problem of this run is not in the registry"),
        (
            zoo.make_strategy("open_es", population_size=4, optimizer=optax.sgd),
            BALL,
            r"The strategy of this run has settings that are neither numbers nor text \(of type function\)",
        ),
    ],
    ids=["changed", "function", "optimizer"],
)
def test_what_cannot_be_made_again_is_asked_for(strategy, problem, message, tmp_path):
    result = zoo.run(strategy, problem, **BUDGET)
    result.save(tmp_path)
    with pytest.raises(ValueError, match=f"{message}.*cannot be made from the folder alone"):
        zoo.load_run(tmp_path)
    assert_same_run(zoo.load_run(tmp_path, problem, strategy), result)


def test_a_run_that_went_on_is_made_again_as_a_whole(tmp_path):
    first = zoo.run("snes", BALL, 1, **BUDGET)
    longer = zoo.run(start=first, num_generations=4, num_scores=2)
    longer.save(tmp_path)
    assert_same_run(zoo.load_run(tmp_path), longer)
    changed = zoo.run(first.strategy.replace(sigma=0.2), start=first, num_generations=4, num_scores=2)
    assert changed.call["strategy"] == {"missing": "was changed on the way"}


def test_the_key_is_stored(folder):
    loaded = zoo.load_run(folder)
    assert_same(loaded.key, jax.random.key(2**31 + 7))


def test_another_precision_is_not_loaded(folder):
    with jax.enable_x64(True), pytest.raises(ValueError, match="other numbers: precision: 32 there, 64 here"):
        zoo.load_run(folder)


@pytest.mark.parametrize(
    ("problem", "strategy"),
    [(zoo.make_problem("blackbox/sphere", num_dims=3), None), (None, "cma_es"), (None, SEARCH)],
    ids=["problem", "strategy", "fewer arrays"],
)
def test_another_problem_or_strategy(problem, strategy, folder):
    with pytest.raises(ValueError, match="is of another problem or strategy: "):
        zoo.load_run(folder, problem, strategy)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"call": {}}', '{"call": 1, "numbers": 2}'])
def test_a_damaged_file_is_named(content, folder):
    (folder / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        zoo.load_run(folder)


@pytest.mark.parametrize("name", ["curve.csv", "history.csv"])
@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", None])
def test_a_damaged_curve_is_named(name, content, folder):
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        zoo.load_run(folder)


def test_a_folder_names_no_function(folder):
    facts = json.loads((folder / "run.json").read_text())
    facts["call"]["strategy"]["settings"]["optimizer"] = {"function": "os:system"}
    (folder / "run.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError):  # noqa: PT011
        zoo.load_run(folder)
