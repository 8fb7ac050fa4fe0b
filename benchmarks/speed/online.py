"""Compares ask + tell of online strategies with evosax 0.3.2, and a generation on Lorenz with its unrolls alone.

ask + tell runs under `lax.scan` at 64 x 100 000 in one process. On the zoo's side a twentieth of the pairs reset in
each generation, as with step-unlocked workers. On evosax's side all pairs reset together in every twentieth generation.

Run: python -m benchmarks.speed.online
"""

import functools

import jax
import jax.numpy as jnp

import zoo
from benchmarks.speed.ask_tell import POPULATION_SIZE, evosax_program
from benchmarks.speed.loop_overhead import evaluation_alone, full
from benchmarks.timing import time_paired
from zoo import Evaluation, Strategy
from zoo.loop import compiled
from zoo.loop.programs import Program
from zoo.problems.unrolled.lorenz import Lorenz

NUM_DIMS = 100_000
NUM_WINDOWS = 20  # per episode
NUM_GENERATIONS = 20  # per call: one whole episode, so that evosax draws once


@jax.jit
def zoo_generations(strategy: Strategy, state, key):
    num_pairs = POPULATION_SIZE // 2
    phase = jnp.arange(num_pairs) * NUM_WINDOWS // num_pairs

    def generation(state, inputs):
        i, key = inputs
        population, state = strategy.ask(key, state)
        done = jnp.tile((i + phase) % NUM_WINDOWS == NUM_WINDOWS - 1, 2)
        evaluation = Evaluation(population[:, 0], done, jnp.asarray(POPULATION_SIZE))
        return strategy.tell(state, population, evaluation), None

    inputs = jnp.arange(NUM_GENERATIONS), jax.random.split(key, NUM_GENERATIONS)
    return jax.lax.scan(generation, state, inputs)[0]


@functools.partial(Program, repeats=True, static_argnames="num_generations")
def unrolls_alone(problem: Lorenz, population, inner, *, num_generations: int):
    """Runs only the steps: no keys, no clock, no resets."""

    def unroll(solution, inner):
        def step(_, carry):
            inner, total = carry
            inner, loss, _ = problem.step(jax.random.key(0), solution, inner)
            return inner, total + loss

        return jax.lax.fori_loop(0, problem.window, step, (inner, 0.0))

    def generation(inner, _):
        inner, losses = jax.vmap(unroll)(population, inner)
        return inner, losses

    return jax.lax.scan(generation, inner, None, length=num_generations)


def main() -> None:
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}; population {POPULATION_SIZE}")
    print("| strategy | dimensions | zoo, ms/generation | evosax, ms/generation | ratio (quartiles) | target |")
    print("| --- | --- | --- | --- | --- | --- |")
    for id, peer, target in (("nres", "NoiseReuseES", 0.6), ("pes", "PersistentES", 0.9)):
        strategy = zoo.make_strategy(id, population_size=POPULATION_SIZE)
        state = strategy.init(jax.random.key(0), jnp.zeros(NUM_DIMS))
        state = zoo_generations(strategy, state, jax.random.key(2))  # after the first generation, which draws all pairs
        ours = functools.partial(zoo_generations, strategy, state, jax.random.key(1))
        t = time_paired(ours, evosax_program(peer, NUM_DIMS, NUM_GENERATIONS, T=NUM_WINDOWS, K=1))
        mine, theirs = (1e3 * seconds / NUM_GENERATIONS for seconds in (t.first, t.second))
        ratio = f"{t.ratio:.2f} ({t.low:.2f} to {t.high:.2f})"
        print(f"| {id} | {NUM_DIMS:,} | {mine:.2f} | {theirs:.2f} | {ratio} | {target:.2f} |", flush=True)

    print()
    print("| Lorenz, 200 pairs x 100 steps | generation, ms | alone, ms | ratio (quartiles) | target |")
    print("| --- | --- | --- | --- | --- |")
    problem = zoo.make_problem("unrolled/lorenz")
    strategy = zoo.make_strategy("nres", problem=problem, population_size=400, optimizer="sgd", learning_rate=1e-5)
    key = jax.random.key(0)
    run_keys, carry = compiled.start(strategy, problem, key, None, batched=False)
    population, _ = strategy.ask(key, carry.state)
    loop = functools.partial(full, strategy, problem, carry, run_keys.generations, num_generations=200)
    for name, alone in (
        (
            "against its steps alone",
            functools.partial(unrolls_alone, problem, population, carry.problem_state.inner, num_generations=200),
        ),
        (
            "against `evaluate` alone",
            functools.partial(evaluation_alone, problem, population, carry.problem_state, key, num_generations=200),
        ),
    ):
        t = time_paired(loop, alone)
        ours, theirs = (1e3 * seconds / 200 for seconds in (t.first, t.second))
        print(
            f"| {name} | {ours:.3f} | {theirs:.3f} | {t.ratio:.2f} ({t.low:.2f} to {t.high:.2f}) | 1.10 |", flush=True
        )


if __name__ == "__main__":
    main()
