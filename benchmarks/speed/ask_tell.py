"""Compares ask + tell under `lax.scan` with evosax 0.3.2 at the same sizes, in one process.

Both sides do the same work per generation: draw a population, compute a fitness that costs almost nothing (the first
coordinate), shape it, and update. Open-ES uses antithetic pairs, centred ranks and Adam on both sides. SNES uses
independent samples and the paper's utilities on both sides.

Run: python -m benchmarks.speed.ask_tell
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import optax

from benchmarks.timing import Paired, time_paired
from zoo.core.strategy import Strategy
from zoo.strategies.distribution.snes import SNES
from zoo.strategies.gradient.open_es import OpenES

POPULATION_SIZE = 64
SIZES = {1_000: 200, 100_000: 4}  # number of dimensions: generations per call


@functools.partial(jax.jit, static_argnames="num_generations")
def zoo_generations(strategy: Strategy, state, key, *, num_generations: int):
    def generation(state, key):
        population, state = strategy.ask(key, state)
        return strategy.tell(state, population, population[:, 0]), None

    return jax.lax.scan(generation, state, jax.random.split(key, num_generations))[0]


def evosax_program(
    name: str, num_dims: int, num_generations: int, *, population_size: int = POPULATION_SIZE, **settings
):
    import evosax.algorithms

    make = getattr(evosax.algorithms, name)
    options = {}
    if "optimizer" in inspect.signature(make).parameters:
        options["optimizer"] = optax.sgd(1.0) if name in ("SNES", "xNES") else optax.adam(0.01)
    algorithm = make(population_size=population_size, solution=jnp.zeros(num_dims), **options)
    params = algorithm.default_params.replace(**settings)

    @jax.jit
    def run(state, key):
        def generation(state, key):
            key_ask, key_tell = jax.random.split(key)
            population, state = algorithm.ask(key_ask, state, params)
            return algorithm.tell(key_tell, population, population[:, 0], state, params)[0], None

        return jax.lax.scan(generation, state, jax.random.split(key, num_generations))[0]

    state = algorithm.init(jax.random.key(0), jnp.zeros(num_dims), params)
    return lambda: run(state, jax.random.key(1))


def compare(strategy: Strategy, peer: str, num_dims: int, num_generations: int) -> Paired:
    state = strategy.init(jax.random.key(0), jnp.zeros(num_dims))
    ours = functools.partial(zoo_generations, strategy, state, jax.random.key(1), num_generations=num_generations)
    return time_paired(ours, evosax_program(peer, num_dims, num_generations))


def main() -> None:
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}; population {POPULATION_SIZE}")
    print("| strategy | dimensions | zoo, ms/generation | evosax, ms/generation | ratio (quartiles) | target |")
    print("| --- | --- | --- | --- | --- | --- |")
    for strategy, name, peer in (
        (OpenES(population_size=POPULATION_SIZE), "open_es", "Open_ES"),
        (SNES(population_size=POPULATION_SIZE), "snes", "SNES"),
    ):
        for num_dims, num_generations in SIZES.items():
            t = compare(strategy, peer, num_dims, num_generations)
            ours, theirs = (1e3 * seconds / num_generations for seconds in (t.first, t.second))
            print(
                f"| {name} | {num_dims:,} | {ours:.3f} | {theirs:.3f} | {t.ratio:.2f} ({t.low:.2f} to {t.high:.2f}) "
                "| 1.00 |",
                flush=True,
            )


if __name__ == "__main__":
    main()
