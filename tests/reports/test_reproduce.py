"""What a report says about how a benchmark is made again is run, and makes the same numbers."""

import shlex

import pytest
from typer.testing import CliRunner

import zoo
from zoo.cli import app
from zoo.reports.contents import PairFacts
from zoo.reports.reproduce import command_line, python_call

SIZES = {"population_size": 4}
TINY = {"num_seeds": 2, "num_steps": 40, "progress": False}


def facts(results):
    return results.metadata, [PairFacts(pair.strategy, pair.problem, pair.info) for pair in results.pairs]


def numbers(results):
    return results.curves.drop(columns=["seconds"]).to_dict("list")


def test_the_call_makes_the_same_numbers():
    problem = {"id": "blackbox/sphere", "num_dims": 2}
    made = zoo.make_strategy("snes", population_size=4)  # with the default sigma, not the one that the problem suggests
    strategies = {"by id": {"id": "random_search", **SIZES}, "made": made}
    results = zoo.benchmark(strategies, {"p": problem}, key=3, num_scores=2, **TINY)
    scope = {}
    exec(python_call(*facts(results)).replace("key=3", "key=3, progress=False"), scope)
    assert numbers(scope["results"]) == numbers(results)
    assert command_line(*facts(results)) is None  # it can neither make a strategy beforehand nor choose the scorings


def test_the_command_makes_the_same_numbers(tmp_path):
    results = zoo.benchmark([{"id": "random_search", **SIZES}], [{"id": "blackbox/sphere", "num_dims": 2}], **TINY)
    command = command_line(*facts(results))
    assert command is not None
    outcome = CliRunner().invoke(app, [*shlex.split(command)[1:], "--out", str(tmp_path), "--no-cache"])
    assert outcome.exit_code == 0, outcome.output
    assert numbers(zoo.Results.load(tmp_path)) == numbers(results)


def test_dots_stand_for_what_is_not_known(tmp_path):
    made = zoo.make_strategy("random_search", **SIZES).replace(sigma=3.0)
    results = zoo.benchmark({"s": made}, [{"id": "blackbox/sphere", "num_dims": 2}], **TINY)
    call = python_call(*facts(results))
    assert "{'s': ...}" in call
    assert "the strategy 's', which is not in the registry with its settings, or was changed after it was made" in call
    for pair in results.pairs:
        del pair.info["call"]
    assert call != python_call(*facts(results))
    assert "the problem 'blackbox/sphere(num_dims=2)', which was not recorded" in python_call(*facts(results))
    assert command_line(*facts(results)) is None


@pytest.mark.parametrize("call", [None, [], {"strategy": 3}, {"strategy": {"id": "x", "settings": 3}}, {"problem": {}}])
def test_a_call_from_somebody_else(call):
    pair = PairFacts("s", "p", {"call": call, "num_steps": "x"})
    compile(python_call({"num_seeds": 1, "key": "\n"}, [pair]), "call", "exec")
    assert command_line({"num_seeds": 1, "key": 0}, [pair]) is None
