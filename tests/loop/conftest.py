"""Two runs that most tests of the loop use. Each test file makes them once."""

import pytest

import zoo
from tests.loop.examples import BOWL, BUDGET, PAIRS, SNES, Walk


@pytest.fixture(scope="module")
def result():
    return zoo.run(SNES, BOWL, 0, **BUDGET)


@pytest.fixture(scope="module")
def walk():
    return zoo.run(PAIRS, Walk(), 0, num_generations=12, num_scores=6)
