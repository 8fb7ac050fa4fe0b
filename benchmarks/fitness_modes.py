"""Runs every strategy on odd fitness: offsets, scales, plateaus, penalties, and values that are not finite.

The problem is a shifted sphere in three dimensions, in 12 modes of fitness. The search must stay finite in every mode.
In all modes except "all the same" it must also learn about as well as on plain fitness. Strategies without shaping are
excused from the two scales. Their steps follow the fitness itself, as in their papers, so extreme scales make the steps
tiny or leave them out.

Run: python -m benchmarks.fitness_modes [--generations 2000] [strategy ...]
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np

import zoo

SIZE, START, GOAL = 12, -1.0, 0.5
ODD_GENERATION, ODD_MEMBER = 5, 3
LOST = 100.0
"""Factor by which the final value may be worse than on plain fitness and still count as learning."""

MODES = {
    "plain": lambda f, x, g: f,
    "1e20 once": lambda f, x, g: once(f, g, 1e20),
    "1e30 once": lambda f, x, g: once(f, g, 1e30),
    "3e38 once": lambda f, x, g: once(f, g, 3e38),
    "inf once": lambda f, x, g: once(f, g, jnp.inf),
    "NaN once": lambda f, x, g: once(f, g, jnp.nan),
    "times 1e30": lambda f, x, g: f * 1e30,
    "times 1e-30": lambda f, x, g: f * 1e-30,
    "plus 1000": lambda f, x, g: f + 1000,
    "penalty 1e30": lambda f, x, g: jnp.where(x[:, 0] < START - 0.1, 1e30, f),
    "NaN in half": lambda f, x, g: jnp.where(x[:, 0] < START - 0.1, jnp.nan, f),
    "all the same": lambda f, x, g: jnp.ones_like(f),
}
ONLY_FINITE = ("all the same",)
OF_SCALE = ("times 1e30", "times 1e-30")


def once(fitness, generation, value):
    is_odd = (generation == ODD_GENERATION) & (jnp.arange(SIZE, dtype=jnp.int32) == ODD_MEMBER)
    return jnp.where(is_odd, value, fitness)


def sphere(x):
    return jnp.sum((x - GOAL) ** 2)


@functools.partial(jax.jit, static_argnames="num_generations")
def learn(strategy, mode, *, num_generations: int):
    """Returns the final value at the mean, and whether mean and standard deviations are finite."""

    def generation(state, step):
        key, number = step
        population, state = strategy.ask(key, state, jax.grad(sphere) if strategy.takes_surrogate(state) else None)
        members = zoo.materialize(population)
        fitness = jax.lax.switch(mode, list(MODES.values()), jax.vmap(sphere)(members), members, number)
        evaluation = zoo.Evaluation.of(fitness, SIZE)
        if strategy.groups.sensitivity is not None:
            evaluation = evaluation._replace(gradient=jax.vmap(jax.grad(sphere))(members))
        return strategy.tell(state, population, evaluation), None

    state = strategy.init(jax.random.key(0), jnp.full(3, START))
    steps = jax.random.split(jax.random.key(1), num_generations), jnp.arange(num_generations, dtype=jnp.int32)
    state, _ = jax.lax.scan(generation, state, steps)
    searched = jax.tree.leaves((strategy.mean(state), strategy.std(state)))
    return sphere(strategy.mean(state)), jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in searched]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs every strategy on odd fitness.")
    parser.add_argument("strategies", nargs="*")
    parser.add_argument("--generations", type=int, default=2000)
    arguments = parser.parse_args()
    ids = arguments.strategies or [id for id in zoo.list_strategies() if "/" not in id and id != "pycma"]
    print("| strategy | plain | not finite | does not learn |")
    print("| --- | --- | --- | --- |")
    counts = np.zeros(3, int)
    for id in ids:
        strategy = zoo.make_strategy(id, population_size=SIZE)
        ends = {}
        for number, name in enumerate(MODES):
            value, is_finite = learn(strategy, jnp.asarray(number, jnp.int32), num_generations=arguments.generations)
            ends[name] = (float(value), bool(is_finite))
        plain = ends["plain"][0]
        broken = [name for name, (_, is_finite) in ends.items() if not is_finite]
        first = 3 * (START - GOAL) ** 2
        bound = max(LOST * plain, 0.05 * first)
        excused = (*ONLY_FINITE, *(OF_SCALE if getattr(strategy, "shaping", None) == "none" else ()))
        lost = {n: v for n, (v, _) in ends.items() if n not in excused and not v <= bound}
        counts += len(ends), len(broken), len(lost)
        told = ", ".join(f"{name} ({value:.2g})" for name, value in lost.items())
        print(f"| {id} | {plain:.2g} | {', '.join(broken) or '-'} | {told or '-'} |", flush=True)
    print(
        f"\n{counts[0]} runs of {arguments.generations} generations; {counts[1]} not finite, {counts[2]} do not learn"
    )


if __name__ == "__main__":
    main()
