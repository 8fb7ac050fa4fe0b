"""Scores that strategies must reach: CartPole solved, digits learned, an ill-conditioned ellipsoid minimised.

Run: python -m benchmarks.milestones
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import zoo
from zoo.loop.budget import Budget
from zoo.loop.drive import Options, drive

NUM_SEEDS = 5


def first_reached(strategy_id: str, problem_id: str, target: float, *, num_steps: int) -> None:
    """Prints when the headline score first reaches a target, over several seeds that run one by one."""
    seconds, steps, reached = [], [], 0
    for seed in range(NUM_SEEDS):
        result = zoo.run(strategy_id, problem_id, seed, num_steps=num_steps, num_scores=50, target=target)
        seconds.append(result.seconds + (result.compile_seconds if seed == 0 else 0))
        steps.append(result.num_steps)
        reached += result.stopped_by == "target"
    print(
        f"| {strategy_id} on {problem_id} | score >= {target:g} | {reached}/{NUM_SEEDS} seeds | "
        f"{np.median(steps):,.0f} steps |"
        f" {np.median(seconds[1:]):.1f} s (first, compilation included: {seconds[0]:.1f} s) |",
        flush=True,
    )


def ellipsoid(x: jax.Array) -> jax.Array:
    """Returns the ellipsoid with condition number 1e6."""
    return jnp.sum(10 ** (6 * jnp.arange(x.size) / (x.size - 1)) * x**2)


def evaluations_on_ellipsoid(*, num_seeds: int = 11) -> None:
    """Prints the evaluations that cma_es needs to reach 1e-8 from standard normal starts in 10 dimensions."""
    problem = zoo.from_function(ellipsoid, functools.partial(jax.random.normal, shape=(10,)))
    strategy = zoo.make_strategy("cma_es", problem=problem, sigma=0.5)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(0), np.arange(num_seeds))
    outcome = drive(strategy, problem, keys, Options(budget=Budget.make(problem, None, 10_000, 1)))
    needed = []
    for history in outcome.histories:
        hits = history["steps"][history["best_fitness"] <= 1e-8]
        needed.append(hits[0] if len(hits) else np.inf)
    print(
        f"| cma_es on the 10-d ellipsoid | fitness <= 1e-8 | {np.isfinite(needed).sum()}/{num_seeds} seeds | "
        f"median {np.median(needed):,.0f} evaluations ({min(needed):,.0f} to {max(needed):,.0f}) | "
        f"{outcome.seconds:.2f} s |",
        flush=True,
    )


def main() -> None:
    """Prints the table."""
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}")
    print("| what | target | reached | steps to it (median) | time to it |")
    print("| --- | --- | --- | --- | --- |")
    first_reached("open_es", "rl/CartPole-v1", 475, num_steps=2_000_000)
    first_reached("snes", "rl/CartPole-v1", 475, num_steps=2_000_000)
    first_reached("open_es", "supervised/digits", 0.95, num_steps=300_000)
    first_reached("snes", "supervised/digits", 0.95, num_steps=300_000)
    evaluations_on_ellipsoid()


if __name__ == "__main__":
    main()
