"""Compares a generation of the full loop on CartPole with its evaluation alone: the cost of ask, tell and bookkeeping.

Run: python -m benchmarks.speed.loop_overhead
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import zoo
from benchmarks.timing import time_paired
from zoo.loop import compiled
from zoo.loop.programs import Program

NUM_GENERATIONS = 20


def full(strategy, problem, carry, key, *, num_generations: int):
    carry = jax.tree.map(jnp.copy, carry)  # the loop reuses the memory of its argument
    unlimited = np.iinfo(np.int32).max
    limits = compiled.Limits(np.int32(num_generations), unlimited, unlimited)
    return compiled.advance(strategy, problem, carry, key, limits, batched=False)[0]


@functools.partial(Program, repeats=True, static_argnames="num_generations")
def evaluation_alone(problem, population, problem_state, key, *, num_generations: int):
    def evaluate(problem_state, i):
        key_evaluate = jax.random.fold_in(key, i)
        evaluation, problem_state = problem.evaluate(key_evaluate, population, problem_state)
        return problem_state, evaluation

    return jax.lax.scan(evaluate, problem_state, jnp.arange(num_generations))


def main() -> None:
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}")
    print("| strategy | loop, ms/generation | evaluation alone, ms | ratio (quartiles) | target |")
    print("| --- | --- | --- | --- | --- |")
    problem = zoo.make_problem("rl/CartPole-v1")
    key = jax.random.key(0)
    for id in ("open_es", "snes"):
        strategy = zoo.make_strategy(id, problem=problem, population_size=64)
        # Starts from a trained policy and does not learn, so that both sides simulate episodes of full length.
        solution = zoo.run(strategy, problem, key, num_steps=500_000, num_scores=1).mean
        frozen = {"learning_rate": 0.0} if id == "open_es" else {"mean_learning_rate": 0.0, "std_learning_rate": 0.0}
        strategy = strategy.replace(sigma=1e-4, **frozen)
        run_keys, carry = compiled.start(strategy, problem, key, solution, batched=False)
        population, _ = strategy.ask(key, carry.state)
        loop = functools.partial(full, strategy, problem, carry, run_keys.generations, num_generations=NUM_GENERATIONS)
        alone = functools.partial(
            evaluation_alone, problem, population, carry.problem_state, key, num_generations=NUM_GENERATIONS
        )
        t = time_paired(loop, alone)
        steps = int(jax.block_until_ready(loop()).steps)
        assert steps == 64 * 500 * NUM_GENERATIONS, f"episodes ended early: {steps} steps"
        ours, theirs = (1e3 * seconds / NUM_GENERATIONS for seconds in (t.first, t.second))
        print(f"| {id} | {ours:.2f} | {theirs:.2f} | {t.ratio:.3f} ({t.low:.3f} to {t.high:.3f}) | 1.10 |", flush=True)


if __name__ == "__main__":
    main()
