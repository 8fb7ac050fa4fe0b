"""What every strategy promises, checked for all that are registered: a new one is covered by its registry row.

The promises are the checks of `zoo.testing`, which authors outside use as well. What depends on JAX and on problems
more than on the strategy is run for one strategy of each kind, and traced for the others.
"""

import numpy as np
import pytest

import zoo.testing
from tests.the_loop import IDS

# One of each kind: a gradient, online, a distribution, members, an inner strategy with a surrogate, a mask; restarts
# only under `vmap`, where each seed has its own.
OF_EACH_KIND = ("open_es", "nres", "cma_es", "de", "hybrid", "lottery")
# What is left of the start on a quadratic, for strategies that sample with a fixed spread.
REACHES = {"random_search": 0.5}
PROBLEMS = zoo.testing.example_problems()


@pytest.fixture(params=IDS, scope="module")  # so that all checks of one strategy follow each other
def case(request):
    id = request.param
    strategy = zoo.make_strategy(id)
    # The sigma of guided ES and its kin is the length of a perturbation.
    is_length = hasattr(strategy, "subspace_dims") and id != "self_guided_es"
    return zoo.testing.StrategyCase(
        id,
        problems=PROBLEMS,
        reaches=REACHES.get(id, 0.01),
        std_per_sigma=1 / np.sqrt(7) if is_length else 1.0,
        thorough=id in OF_EACH_KIND,
    )


@pytest.mark.parametrize("check", zoo.testing.STRATEGY_CHECKS, ids=lambda check: check.__name__)
def test_strategies(case, check):
    zoo.testing.run_check(check, case)
