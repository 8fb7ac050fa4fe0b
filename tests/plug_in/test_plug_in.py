"""The plug-in keeps the promises of strategies and problems; each check is a test."""

import pytest

import zoo.testing


@pytest.fixture(scope="module")
def strategy():
    return zoo.testing.StrategyCase("random_directions", reaches=0.05)


@pytest.fixture(scope="module")
def problem():
    return zoo.testing.ProblemCase("control/oscillator")


@pytest.mark.parametrize("check", zoo.testing.STRATEGY_CHECKS, ids=lambda check: check.__name__)
def test_strategy(strategy, check):
    zoo.testing.run_check(check, strategy)


@pytest.mark.parametrize("check", zoo.testing.PROBLEM_CHECKS, ids=lambda check: check.__name__)
def test_problem(problem, check):
    zoo.testing.run_check(check, problem)


def test_it_learns():
    strategy = {"id": "random_directions", "learning_rate": 0.1}
    result = zoo.run(strategy, "control/oscillator", num_generations=50)
    assert result.score < result.scores["objective"][0] / 2
