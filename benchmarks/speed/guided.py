"""Compares ask + tell of guided ES under `lax.scan` at 64 x 100 000 with evosax 0.3.2's GuidedES, in one process.

Both sides take a new surrogate gradient in every generation and use Adam. The surrogate is the mean itself, which costs
nothing.

Run: python -m benchmarks.speed.guided
"""

import jax
import jax.numpy as jnp
import optax

import zoo
from benchmarks.speed.ask_tell import POPULATION_SIZE
from benchmarks.timing import time_paired
from zoo.core.strategy import Strategy

NUM_DIMS = 100_000
NUM_GENERATIONS = 4


@jax.jit
def zoo_generations(strategy: Strategy, state, keys):
    def generation(state, key):
        population, state = strategy.ask(key, state, lambda x: x)
        return strategy.tell(state, population, population[:, 0]), None

    return jax.lax.scan(generation, state, keys)[0]


def evosax_program(subspace_dims: int, keys):
    from evosax.algorithms import GuidedES

    solution = jnp.ones(NUM_DIMS)
    algorithm = GuidedES(
        population_size=POPULATION_SIZE, solution=solution, subspace_dims=subspace_dims, optimizer=optax.adam(0.01)
    )
    params = algorithm.default_params

    @jax.jit
    def run(state, keys):
        def generation(state, key):
            key_ask, key_tell = jax.random.split(key)
            population, state = algorithm.ask(key_ask, state.replace(grad=state.mean), params)
            return algorithm.tell(key_tell, population, population[:, 0], state, params)[0], None

        return jax.lax.scan(generation, state, keys)[0]

    state = algorithm.init(jax.random.key(0), solution, params)
    return lambda: run(state, keys)


def main() -> None:
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}; population {POPULATION_SIZE}")
    print("| strategy | surrogates kept | zoo, ms/generation | evosax, ms/generation | ratio (quartiles) | target |")
    print("| --- | --- | --- | --- | --- | --- |")
    keys = jax.random.split(jax.random.key(1), NUM_GENERATIONS)
    for adaptive in (False, True):
        for subspace_dims in (1, 8):
            strategy = zoo.make_strategy(
                "guided_es", population_size=POPULATION_SIZE, subspace_dims=subspace_dims, adaptive=adaptive
            )
            state = strategy.init(jax.random.key(0), jnp.ones(NUM_DIMS))
            peer = evosax_program(subspace_dims, keys)
            t = time_paired(lambda s=strategy, x=state: zoo_generations(s, x, keys), peer)
            ours, theirs = (1e3 * seconds / NUM_GENERATIONS for seconds in (t.first, t.second))
            name = "guided_es, adaptive" if adaptive else "guided_es"
            print(
                f"| {name} | {subspace_dims} | {ours:.1f} | {theirs:.1f} | {t.ratio:.2f} ({t.low:.2f} to {t.high:.2f}) "
                "| 0.30 |",
                flush=True,
            )


if __name__ == "__main__":
    main()
