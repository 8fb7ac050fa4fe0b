"""Every strategy searches solutions in float16 and bfloat16, and computes in single precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from tests.the_loop import IDS
from zoo.strategies.gradient import optimizers
from zoo.testing.loop import told

SIZE = 6
KEY = jax.random.key(0)
# Errors of precision show when lowering. Compiling takes long, so `LARGE` is only lowered. bipop is left
# out, because its program is the same as the program of ipop.
LARGE = ("ipop",)
IN_BFLOAT16 = ("cma_es", "snes", "open_es")  # a few suffice: bfloat16 has the range of single precision


def sphere(solution):
    return sum(jnp.sum((x - 1) ** 2) for x in jax.tree.leaves(solution))  # computed in half precision


def search(strategy, key, solution):
    """Returns the fitness of the mean in each of 12 generations, and one member, mean and deviations at the end."""

    def generation(carry, key):
        population, state = strategy.ask(key, carry[0], jax.grad(sphere))
        fitness = zoo.map_members(sphere, population)
        state = strategy.tell(state, population, told(strategy, population, fitness, sphere))
        member = zoo.materialize(population)["x"][0]
        return (state, member), sphere(strategy.mean(state))

    (state, member), fitness = jax.lax.scan(
        generation, (strategy.init(key, solution), solution["x"]), jax.random.split(key, 12)
    )
    return fitness, (member, strategy.mean(state)["x"], strategy.std(state)["x"])


@pytest.mark.parametrize(
    ("id", "dtype"),
    [*((id, "float16") for id in IDS if id != "bipop"), *((id, "bfloat16") for id in IN_BFLOAT16)],
    ids=str,
)
def test_every_strategy_searches(id, dtype):
    strategy = zoo.make_strategy(id, population_size=SIZE)
    lowered = jax.jit(functools.partial(search, strategy)).lower(KEY, {"x": jnp.zeros(3, dtype)})
    if id in LARGE:
        return
    fitness, handed_out = lowered.compile()(KEY, {"x": jnp.zeros(3, dtype)})
    assert {str(x.dtype) for x in handed_out} == {dtype}
    assert all(np.isfinite(np.float32(x)).all() for x in (fitness, *handed_out))
    assert np.float32(fitness).min() < 3 - 0.1, fitness  # 3 is the fitness of the start


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_steps_that_are_lost_to_rounding_add_up(dtype):
    optimizer = optax.sgd(1e-4)
    solution = {"half": jnp.ones(2, dtype), "single": jnp.ones(2)}
    state = optimizers.start(optimizer, solution)
    step = jax.jit(functools.partial(optimizers.step, optimizer))
    for _ in range(1000):
        solution, state = step(jax.tree.map(jnp.ones_like, solution), state, solution)
    assert {name: str(x.dtype) for name, x in solution.items()} == {"half": dtype, "single": "float32"}
    np.testing.assert_allclose(np.float32(solution["half"]), 0.9, rtol=float(jnp.finfo(dtype).eps))
    assert not isinstance(optimizers.start(optimizer, {"single": jnp.ones(2)}), optimizers.Rounded)
