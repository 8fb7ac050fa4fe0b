"""For all registered strategies: what does not change when the problem is moved or its fitness is transformed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.the_loop import IDS
from zoo.testing.loop import told

SIZE = 6
NUM_GENERATIONS = 5
SHIFT = 8.0
CURVATURE = jnp.array([1.0, 4.0, 0.5])

# Strategies that use more than the order of the fitness, with the reason. A strategy that is not named here must not.
ESTIMATES = "an unbiased estimate of the gradient weighs the members by their fitness itself"
NOT_RANK_BASED = {
    "asebo": ESTIMATES,
    "ars": "it divides by the standard deviation of the fitness of the best directions",
    "cv_zod": ESTIMATES,
    "es_single": ESTIMATES,
    "full_es": ESTIMATES,
    "gpes": ESTIMATES,
    "guided_es": ESTIMATES,
    "nres": ESTIMATES,
    "pes": ESTIMATES,
    "self_guided_es": ESTIMATES,
    "tes": "it goes on from the best member, but steps by the fitness itself",
}


def valley(x):
    """A quadratic with its minimum away from the start."""
    return jnp.sum(CURVATURE.astype(x["a"].dtype) * (x["a"] - 0.5) ** 2) + (x["b"] + 1) ** 2 / 2


def moved(x, by):
    return jax.tree.map(lambda leaf: leaf + by, x)


@pytest.fixture(params=IDS, scope="module")
def id(request):
    return request.param


@pytest.fixture(scope="module")
def runs(id):
    """Returns all fitness and the final mean of three runs: plain, moved, and with transformed fitness."""
    strategy = zoo.make_strategy(id, population_size=SIZE)

    def run(shift, transforms):
        def body(state, key):
            def fn(x):
                return valley(moved(x, -shift))

            population, state = strategy.ask(key, state, jax.grad(fn))
            fitness = zoo.map_members(fn, population)
            transformed = jnp.where(transforms, jnp.exp(2 * fitness) - 7, fitness)
            return strategy.tell(state, population, told(strategy, population, transformed, fn)), fitness

        state = strategy.init(jax.random.key(0), moved({"a": jnp.zeros(3), "b": jnp.zeros(())}, shift))
        state, fitness = jax.lax.scan(body, state, jax.random.split(jax.random.key(1), NUM_GENERATIONS))
        return fitness, strategy.mean(state)

    with jax.enable_x64(True):
        run = jax.jit(run)
        return [
            jax.device_get(run(jnp.asarray(shift), transforms))
            for shift, transforms in ((0.0, False), (SHIFT, False), (0.0, True))
        ]


def test_translation(runs):
    """A run on f(x - c) from x_0 + c is the run on f(x) from x_0, moved by c, up to rounding in float64."""
    (fitness, mean), (moved_fitness, moved_mean), _ = runs
    np.testing.assert_allclose(moved_fitness, fitness, rtol=1e-9)
    for name in mean:
        np.testing.assert_allclose(moved_mean[name] - SHIFT, mean[name], rtol=1e-9, atol=1e-9)
        assert np.all(mean[name] != 0)  # every parameter did move


def test_monotone_transform_of_the_fitness(id, runs):
    """A monotone transform changes nothing, bit for bit, in strategies that use only the order of the fitness.

    In the strategies of `NOT_RANK_BASED` it changes something.
    """
    (fitness, mean), _, (transformed_fitness, transformed_mean) = runs
    is_same = np.array_equal(fitness, transformed_fitness) and all(
        np.array_equal(mean[name], transformed_mean[name]) for name in mean
    )
    reason = NOT_RANK_BASED.get(id)
    assert is_same == (reason is None), reason or f"{id} is not in NOT_RANK_BASED"
