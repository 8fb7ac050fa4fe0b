"""Checks the promises of every registered strategy. A new strategy is covered by its registry row.

The promises are the checks of `zoo.testing`, which outside authors use as well. Checks that depend more on JAX and on
the problem than on the strategy run for one strategy of each kind. For the others they are only traced.
"""

import numpy as np
import pytest

import zoo.testing
from tests.the_loop import IDS

# One strategy of each kind: a gradient, online, a distribution, members, an inner strategy with a surrogate, a mask.
# Restarts run only under `vmap`, where each seed restarts at its own time.
OF_EACH_KIND = ("open_es", "nres", "cma_es", "de", "hybrid", "lottery")
# The fraction of the initial fitness that is left on a quadratic, for strategies with a fixed spread.
REACHES = {"random_search": 0.5}
PROBLEMS = zoo.testing.example_problems()


@pytest.fixture(params=IDS, scope="module")  # groups all checks of one strategy
def case(request):
    id = request.param
    strategy = zoo.make_strategy(id)
    # In guided ES and similar strategies, sigma is the length of a perturbation.
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
