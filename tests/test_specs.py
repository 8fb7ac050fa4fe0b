"""Strategies and problems given as dictionaries of an id and settings, in every function that takes them."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import typer.testing

import zoo
import zoo.cli
from zoo.registry import label_of

STRATEGY = {"id": "snes", "sigma": 0.5, "population_size": 4}
PROBLEM = {"id": "blackbox/sphere", "num_dims": 2}
START = np.zeros(2)
TICKET = zoo.Ticket(kept=1.0, mask=np.ones(2, bool), solution=START, mean=None, statistics=(), metrics={}, info={})
TAKE_STRATEGIES = {
    "make_strategy": lambda spec: zoo.make_strategy(spec),
    "run": lambda spec: zoo.run(spec, PROBLEM),
    "minimize": lambda spec: zoo.minimize(jnp.sum, START, spec),
    "Optimizer": lambda spec: zoo.Optimizer(spec, START),
    "benchmark": lambda spec: zoo.benchmark(spec, PROBLEM, progress=False),
    "benchmark, several": lambda spec: zoo.benchmark(["snes", spec], PROBLEM, progress=False),
    "benchmark, labels": lambda spec: zoo.benchmark({"mine": spec}, PROBLEM, progress=False),
    "wrapper": lambda spec: zoo.make_strategy("bounded", base=spec),
    "wrapper of a wrapper": lambda spec: zoo.make_strategy({"id": "ipop", "base": {"id": "bounded", "base": spec}}),
    "lottery_tickets": lambda spec: zoo.lottery_tickets(spec, "supervised/digits"),
    "Ticket.train": lambda spec: TICKET.train(spec, PROBLEM, num_generations=1),
    "estimator_statistics": lambda spec: zoo.estimator_statistics(spec, PROBLEM),
}
TAKE_PROBLEMS = {
    "make_problem": lambda spec: zoo.make_problem(spec),
    "run": lambda spec: zoo.run("snes", spec),
    "benchmark": lambda spec: zoo.benchmark("snes", spec, progress=False),
    "benchmark, labels": lambda spec: zoo.benchmark("snes", {"mine": spec}, progress=False),
    "lottery_tickets": lambda spec: zoo.lottery_tickets("snes", spec),
    "prune_at_init": lambda spec: zoo.prune_at_init(spec, 0.5),
    "Ticket.train": lambda spec: TICKET.train("snes", spec, num_generations=1),
    "Ticket.evaluate": lambda spec: TICKET.evaluate(spec),
    "estimator_statistics": lambda spec: zoo.estimator_statistics("open_es", spec),
    "interpolate": lambda spec: zoo.interpolate(spec, START, START),
    "flatness": lambda spec: zoo.flatness(spec, START, sigmas=[0.1]),
}
WRONG = [
    ({"sigma": 0.5}, TypeError, 'needs its "id"'),
    ({"id": 3}, TypeError, '"id" of a .* must be text, got 3'),
    ({3: 4, "id": "snes"}, TypeError, "Names of settings of a .* must be text, got 3"),
    ({"id": "snes", "hiden": 1}, TypeError, "has no setting 'hiden'"),
]


@pytest.mark.parametrize("taker", TAKE_STRATEGIES)
def test_takers_of_strategies(taker):
    """Each function says what is wrong with a dictionary, which shows that it takes dictionaries."""
    for spec, error, words in [
        *WRONG,
        ({"id": "snes", "sigm": 1}, TypeError, "Did you mean 'sigma'"),
        ({"id": "snse"}, ValueError, "Did you mean 'snes'"),
        ({"id": "snes", "sigma": -1}, ValueError, r"SNES\.sigma must be greater than 0"),
    ]:
        if taker.startswith("benchmark") and taker != "benchmark, labels" and not isinstance(spec.get("id"), str):
            continue  # a mapping without an id is a mapping from labels
        with pytest.raises(error, match=words):
            TAKE_STRATEGIES[taker](spec)


@pytest.mark.parametrize("taker", TAKE_PROBLEMS)
def test_takers_of_problems(taker):
    for spec, error, words in [
        ({"id": "blackbox/sphere", "num_dim": 1}, TypeError, "Did you mean 'num_dims'"),
        ({"id": "blackbox/spher"}, ValueError, "Did you mean 'blackbox/sphere'"),
        ({"id": "blackbox/sphere", "num_dims": -1}, ValueError, r"BBOB\.num_dims must be at least 2"),
    ]:
        with pytest.raises(error, match=words):
            TAKE_PROBLEMS[taker]({**spec})


@pytest.mark.parametrize("given", [3, None, ["snes"], zoo.Strategy])
def test_what_is_neither_an_id_nor_a_dictionary(given):
    with pytest.raises(TypeError, match=r"Expected a strategy id or a zoo\.Strategy, got .* is a dictionary"):
        zoo.make_strategy(given)
    with pytest.raises(TypeError, match=r"Expected a problem id or a zoo\.Problem, got .* is a dictionary"):
        zoo.make_problem(given)


def test_settings_beside_a_dictionary_take_precedence():
    assert zoo.make_strategy(STRATEGY, sigma=0.7).sigma == 0.7
    assert zoo.make_problem(PROBLEM, num_dims=5).num_dims == 5
    with pytest.raises(TypeError, match="has no setting 'id'"):
        zoo.minimize(jnp.sum, START, "snes", id="cma_es")
    with pytest.raises(TypeError, match="has no setting 'problem'"):
        zoo.Optimizer("snes", START, problem=3)


def test_the_task_of_a_problem():
    for id in ("unrolled/mlp_lr_schedule", "supervised/accuracy_pipeline"):
        task = zoo.make_problem(id, task={"id": "supervised/digits", "hidden": (3,)}).task
        assert task.network.features == (3, 10)
        with pytest.raises(TypeError, match="Did you mean 'hidden'"):
            zoo.make_problem(id, task={"id": "supervised/digits", "hiden": 1})


def test_labels():
    assert label_of("snes") == label_of({"id": "snes"}) == "snes"
    assert label_of({"id": "ipop", "base": {"id": "cma_es", "sigma": 0.5}}) == "ipop(base=cma_es(sigma=0.5))"
    assert label_of(zoo.make_strategy("snes")) == "SNES"


def test_a_dictionary_is_as_good_as_an_id(tmp_path):
    """A run gives the same result, also after it is loaded from its folder, and so does a benchmark."""
    by_dictionary = zoo.run(STRATEGY, PROBLEM, num_generations=2)
    by_id = zoo.run(zoo.make_strategy(**STRATEGY), zoo.make_problem(**PROBLEM), num_generations=2)
    assert np.array_equal(by_dictionary.mean, by_id.mean)
    by_dictionary.save(tmp_path)
    assert zoo.load_run(tmp_path).strategy.sigma == zoo.load_run(tmp_path, PROBLEM, STRATEGY).strategy.sigma == 0.5
    results = zoo.benchmark(STRATEGY, [PROBLEM], num_seeds=1, num_steps=8, num_scores=1, progress=False)
    assert results.summary().strategy.tolist() == ["snes(sigma=0.5, population_size=4)"]


def zoo_command(*args):
    return typer.testing.CliRunner().invoke(zoo.cli.app, list(args))


def test_json_on_the_command_line(tmp_path):
    strategy, problem = json.dumps(STRATEGY), json.dumps(PROBLEM)
    done = zoo_command("run", strategy, problem, "--generations", "2", "--set", "sigma=0.7", "--no-cache")
    assert done.exit_code == 0, done.stderr
    assert "snes(sigma=0.7, population_size=4) on blackbox/sphere(num_dims=2)" in done.stdout
    out = ("--seeds", "1", "--steps", "8", "--out", str(tmp_path), "--no-cache")
    label = "snes(sigma=0.5, population_size=4)"
    done = zoo_command("benchmark", "-s", strategy, "-s", "snes", "-p", problem, *out, "--set", f"{label}:sigma=0.7")
    assert done.exit_code == 0, done.stderr
    results = zoo.Results.load(tmp_path)
    sigmas = [pair.info["strategy_settings"]["sigma"] for pair in results.pairs]
    assert sigmas == [0.7, 2.0]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("run", '{"id": "snes"', "blackbox/sphere"), "must be JSON of its id and settings"),
        (("run", '{"sigma": 1}', "blackbox/sphere"), 'needs its "id"'),
        (("run", "snes", '{"id": 3}'), '"id" of a problem must be text'),
        (("run", "snes", "blackbox/sphere", "--set", "id=3"), "'id' is not a setting, but an argument of its own"),
        (
            ("run", "snes", "blackbox/sphere", "--set", "problem=3"),
            "'problem' is not a setting, but an argument of its own",
        ),
        (
            ("run", "snes", "blackbox/sphere", "--set-problem", "id=3"),
            "'id' is not a setting, but an argument of its own",
        ),
        (
            ("tickets", "snes", "supervised/digits", "--set", "id=3"),
            "'id' is not a setting, but an argument of its own",
        ),
        (("benchmark", "-s", "snes", "-s", '{"id": "snes"}', "-p", "blackbox/sphere"), "have the label 'snes'"),
        (
            ("benchmark", "-s", '{"id": {}}', "-p", "blackbox/sphere", "--set", "sigma=1"),
            '"id" of a strategy must be text',
        ),
        (("run", "{" * 100_000, "blackbox/sphere"), "must be JSON"),
    ],
)
def test_the_command_line_says_what_is_wrong(args, words):
    done = zoo_command(*args, "--no-cache")
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line
