"""Trains a CNN of more than a million parameters by ES alone (the first result of Lenc et al. 2019, arXiv 1906.03139).

OpenAI-ES uses semi-updates: each of four workers has its own minibatch and ranks only its own candidates, and the
partial gradients are averaged. The network has 5 x 5 convolutions with 16 and 32 channels, and dense layers with 1 024
and 1 024 units.

Run: python -m benchmarks.reproductions.es_cnn
"""

import resource

import jax
import optax

import zoo
from zoo.core.solution import num_dims
from zoo.loop import compiled
from zoo.problems.networks import CNN

NUM_GENERATIONS = 800
TARGET = 0.95


def cosine_adam(learning_rate):
    return optax.adam(optax.cosine_decay_schedule(learning_rate, NUM_GENERATIONS, alpha=0.05))


def main() -> None:
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}")
    problem = zoo.make_problem(
        "supervised/digits",
        network=CNN((16, 32), 10, hidden=(1024, 1024)),
        batch_size=64,
        member_batch_size=32,
    )
    strategy = zoo.make_strategy(
        "open_es", population_size=128, num_workers=4, sigma=0.02, learning_rate=0.005, optimizer=cosine_adam
    )
    size = num_dims(jax.eval_shape(problem.initial_solution, jax.random.key(0)))
    key = jax.random.key(0)
    _, carry = jax.eval_shape(lambda k: compiled.start(strategy, problem, k, None, batched=False), key)
    generation = jax.jit(lambda s, p, c, k: compiled.generation(s, p, c, k)[0])
    memory = generation.lower(strategy, problem, carry, jax.random.split(key)).compile().memory_analysis()
    temporary = memory.temp_size_in_bytes if memory is not None else float("nan")
    print(f"{size:,} parameters; temporary memory of a compiled generation: {temporary / 2**20:,.0f} MiB")

    def show(progress):
        accuracy = progress.metrics["test_accuracy"]
        print(f"  generation {progress.generation:,}: {accuracy:.3f}, {progress.seconds:.0f} s", flush=True)

    result = zoo.run(strategy, problem, 0, num_generations=NUM_GENERATIONS, num_scores=24, target=TARGET, callback=show)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print("\n| parameters | test accuracy | generations | forward passes | seconds | peak resident memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(
        f"| {size:,} | {result.score:.3f} (target {TARGET}) | {result.num_generations:,} | {result.num_steps * 64:,} "
        f"| {result.seconds:.0f} | {peak:,.0f} MiB |"
    )


if __name__ == "__main__":
    main()
