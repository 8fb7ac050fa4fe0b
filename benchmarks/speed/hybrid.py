"""Compares a step of hybrid ES + gradient descent with a plain gradient step on the dense network, in one process.

MLP 64-128-64-10 on digits, 5 % of the weights kept, minibatch 128. The hybrid has 8 members: 8 masks, 8 forward and
backward passes, the update of the scores by OpenAI-ES and of the weights by Adam. XLA computes the fitness and its
gradient in the same pass. The plain step is only `jax.value_and_grad` and Adam.

Run: python -m benchmarks.speed.hybrid
"""

import functools
from typing import Any

import jax
import optax

import zoo
from benchmarks.speed.loop_overhead import full
from benchmarks.timing import time_paired
from zoo.loop import compiled

POPULATION_SIZE, NUM_STEPS = 8, 100


@functools.partial(jax.jit, static_argnames="num_steps")
def plain(problem, params, key, *, num_steps: int):
    transformation = optax.adam(0.003)

    def step(carry, key):
        params, state = carry
        value, gradient = jax.value_and_grad(lambda p: problem.fitness(key, p))(params)
        updates, state = transformation.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    return jax.lax.scan(step, (params, transformation.init(params)), jax.random.split(key, num_steps))


def flops(compiled: Any) -> float:
    cost = compiled.cost_analysis()
    return (cost[0] if isinstance(cost, list) else cost)["flops"]


def main() -> None:
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}; population {POPULATION_SIZE}")
    dense: Any = zoo.make_problem("supervised/digits", hidden=(128, 64))
    sparse: Any = zoo.make_problem("supervised/digits", hidden=(128, 64), density=0.05)
    key = jax.random.key(0)
    params = dense.initial_solution(key)
    plain_step = functools.partial(plain, dense, params, key, num_steps=NUM_STEPS)
    print("| step | ms | plain gradient step, ms | ratio (quartiles) | target |")
    print("| --- | --- | --- | --- | --- |")
    for name, strategy in (
        ("hybrid", zoo.make_strategy("hybrid", problem=sparse, population_size=POPULATION_SIZE)),
        ("fixed random mask", zoo.make_strategy("tbptt", population_size=1)),
    ):
        _, carry = compiled.start(strategy, sparse, key, None, batched=False)
        loop = functools.partial(full, strategy, sparse, carry, key, num_generations=NUM_STEPS)
        t = time_paired(loop, plain_step)
        ours, theirs = (1e3 * seconds / NUM_STEPS for seconds in (t.first, t.second))
        target = f"{POPULATION_SIZE:.2f}" if name == "hybrid" else ""
        print(f"| {name} | {ours:.2f} | {theirs:.2f} | {t.ratio:.2f} ({t.low:.2f} to {t.high:.2f}) | {target} |")

    strategy = zoo.make_strategy("hybrid", problem=sparse, population_size=POPULATION_SIZE)
    _, carry = compiled.start(strategy, sparse, key, None, batched=False)
    generation = jax.jit(lambda s, p, c, k: compiled.generation(s, p, c, k)[0])
    whole = flops(generation.lower(strategy, sparse, carry, jax.random.split(key)).compile())
    one = flops(plain.lower(dense, params, key, num_steps=1).compile())
    print(f"\nfloating-point operations of a hybrid step over those of a plain step: {whole / one:.1f}")


if __name__ == "__main__":
    main()
