"""Ceilings on the evaluations that each strategy needs on four functions. A worse search fails here.

A new strategy of `strategies/distribution/` or `strategies/population/` needs a row in `CEILINGS`. This prints it:

    JAX_PLATFORMS=cpu .venv/bin/python -m tests.strategies.test_convergence my_es 1e-8

Before you paste it, compare with what a paper or a peer needs: a ceiling around a bug protects the bug.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.the_loop import IDS

NUM_DIMS = 5
NUM_SEEDS = 5
BUDGET = 15_000
FUNCTIONS = ("sphere", "ellipsoid", "rotated ellipsoid", "rosenbrock")
CURVATURE = 10.0 ** (6 * np.arange(NUM_DIMS) / (NUM_DIMS - 1))  # condition number 1e6
ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(NUM_DIMS, NUM_DIMS)))[0]

# Target fitness, then one ceiling for each function: 1.5 times the evaluations (median over the seeds) until the best
# member is below the target. `None`: the target is not reached within the budget, or only by chance.
CEILINGS = {
    "cma_es": (1e-8, 984, 2_160, 2_232, 1_776),
    "cr_fm_nes": (1e-8, 732, 1_716, None, 2_892),
    "de": (1e-8, 12_225, 18_600, None, None),
    "lm_ma_es": (1e-8, 1_044, None, None, 8_280),
    "lra_cma_es": (1e-8, 2_736, 6_888, 7_080, 12_156),
    "ma_es": (1e-8, 1_032, 2_892, 2_808, 2_448),
    "one_plus_one_es": (1e-8, 495, None, None, None),
    "pso": (1e-8, 6_600, 11_850, None, None),
    "random_search": (1.0, 684, None, None, None),
    "sep_cma_es": (1e-8, 840, 1_704, None, None),
    "simple_ga": (1e-3, 4_650, None, None, None),
    "snes": (1e-8, 1_248, 1_956, None, None),
    "xnes": (1e-8, 2_004, 3_240, 3_312, 2_712),
}


def fitness(function, x):
    """Returns the value of function number `function` at x. All functions have their minimum, 0, at the origin."""
    turned = jnp.where(function == 2, ROTATION @ x, x)
    ellipsoid = jnp.sum(jnp.where(function == 0, 1.0, CURVATURE) * turned**2)
    z = x + 1
    rosenbrock = jnp.sum(100 * (z[1:] - z[:-1] ** 2) ** 2 + (1 - z[:-1]) ** 2)
    return jnp.where(function == 3, rosenbrock, ellipsoid)


def num_evaluations(id, target):
    """Returns the median evaluations on each function until a member is below the target, or infinity.

    The function is chosen at run time, so that each strategy is compiled once, in double precision.
    """
    strategy = zoo.make_strategy(id).for_solution(np.zeros(NUM_DIMS))
    num_generations = BUDGET // strategy.population_size

    def run(function, key):
        def goes_on(carry):
            _, best, generation = carry
            return (best >= target) & (generation < num_generations)

        def body(carry):
            state, best, generation = carry
            population, state = strategy.ask(jax.random.fold_in(key, generation), state)
            values = zoo.map_members(lambda x: fitness(function, x), population)
            return strategy.tell(state, population, values), jnp.minimum(best, jnp.min(values)), generation + 1

        start = jax.random.normal(key, (NUM_DIMS,))
        carry = (strategy.init(key, start), jnp.asarray(jnp.inf, start.dtype), 0)
        _, best, generation = jax.lax.while_loop(goes_on, body, carry)
        return jnp.where(best < target, generation * strategy.population_size, jnp.inf)

    with jax.enable_x64(True):
        functions = jnp.repeat(jnp.arange(len(FUNCTIONS)), NUM_SEEDS)
        keys = jax.random.split(jax.random.key(0), len(functions))
        numbers = jax.jit(lambda: jax.lax.map(lambda pair: run(*pair), (functions, keys)))()
    return np.median(np.asarray(numbers).reshape(len(FUNCTIONS), NUM_SEEDS), axis=1)


def needs_row(id):
    """Returns whether a strategy needs a ceiling. Gradient estimators and wrappers do not: their settings decide."""
    family = type(zoo.make_strategy(id)).__module__.split(".")[-2]
    return family in ("distribution", "population")


@pytest.mark.parametrize("id", [id for id in IDS if id in CEILINGS or needs_row(id)])
def test_evaluations_stay_below_the_ceilings(id):
    if id not in CEILINGS:
        pytest.fail(f"{id} has no row in CEILINGS: `python -m tests.strategies.test_convergence {id}` prints it.")
    target, *ceilings = CEILINGS[id]
    assert any(ceiling is not None for ceiling in ceilings), "choose a target that it can reach"
    found = num_evaluations(id, target)
    for function, ceiling, number in zip(FUNCTIONS, ceilings, found, strict=True):
        assert ceiling is None or number <= ceiling, function


if __name__ == "__main__":
    id, target = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "1e-8"
    row = ["None" if np.isinf(number) else f"{1.5 * number:_.0f}" for number in num_evaluations(id, float(target))]
    print(f'    "{id}": ({", ".join([target, *row])}),')
