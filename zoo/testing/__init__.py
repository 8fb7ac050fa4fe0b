"""Checks for authors: what every strategy and every problem promises, as functions that raise.

The zoo's own conformance suite consists of these checks. A test of your own strategy or problem is one line:

    def test_my_strategy():
        zoo.testing.check_strategy(MyStrategy)

`STRATEGY_CHECKS` and `PROBLEM_CHECKS` hold the single checks. With `pytest.mark.parametrize` over them, each becomes a
test of its own.
"""

from zoo.testing.examples import example_problems
from zoo.testing.problem_case import ProblemCase
from zoo.testing.problem_checks import PROBLEM_CHECKS, check_problem
from zoo.testing.promise import BrokenPromiseError, run_check
from zoo.testing.strategy_case import StrategyCase
from zoo.testing.strategy_checks import STRATEGY_CHECKS, check_strategy
from zoo.testing.strict import strict_modes

__all__ = [
    "PROBLEM_CHECKS",
    "STRATEGY_CHECKS",
    "BrokenPromiseError",
    "ProblemCase",
    "StrategyCase",
    "check_problem",
    "check_strategy",
    "example_problems",
    "run_check",
    "strict_modes",
]
