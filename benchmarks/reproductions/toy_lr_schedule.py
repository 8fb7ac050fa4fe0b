"""Toy learning-rate schedule (Vicol et al. 2021, arXiv 2112.13835): truncation is short-sighted.

The settings are the authors': T = 100, W = 10, 100 particles (TES 150, the unperturbed ones included), sigma 0.3 (TES
1.0), Adam 1e-2 with b1 = 0.99, and full ES with 5 pairs.

Run: python -m benchmarks.reproductions.toy_lr_schedule
"""

import jax
import jax.numpy as jnp

import zoo
from benchmarks.reproductions.curves import Method, draw, run_methods

NUM_SEEDS = 3


def main() -> None:
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}\n")
    problem = zoo.make_problem("unrolled/toy_lr_schedule")
    window, horizon = problem.window, problem.horizon  # pyright: ignore[reportAttributeAccessIssue]
    methods = {}
    for name, id, size, num_updates, steps, settings in (
        ("NRES", "nres", 100, 10_000, window, {}),
        ("PES", "pes", 100, 10_000, window, {}),
        ("ES-Single", "es_single", 100, 10_000, window, {}),
        ("TES", "tes", 150, 10_000, window, {"sigma": 1.0}),
        ("FullES (5 pairs)", "full_es", 10, 10_000, horizon, {}),
        ("TBPTT", "tbptt", 10, 10_000, window, {}),
        ("BPTT", "bptt", 1, 10_000, horizon, {}),
    ):
        strategy = zoo.make_strategy(id, problem=problem, population_size=size, **settings)
        methods[name] = Method(strategy, problem, num_updates, steps)
    results = run_methods(methods, num_seeds=NUM_SEEDS, num_scores=100, metric="objective")
    for name, target in (("NRES", "below 600"), ("PES", "below 600"), ("TES", "above 1 000")):
        final = [run.score for run in results[name]]
        hits = sum(x > 1000 if name == "TES" else x < 600 for x in final)
        print(f"\n{name} {target}: {hits} of {NUM_SEEDS} seeds")
    rates = jnp.stack(jnp.meshgrid(jnp.linspace(-8, 4, 500), jnp.linspace(-8, 4, 500)), axis=-1).reshape(-1, 2)
    values = jax.jit(jax.vmap(lambda x: problem.fitness(jax.random.key(0), x)))(rates)
    draw(
        "toy_lr_schedule.png",
        methods,
        results,
        metric="objective",
        label="sum of losses over an episode",
        title="Toy learning-rate schedule",
        lines={"best on a grid": float(jnp.nanmin(values))},
        limits=(500, 4000),
    )


if __name__ == "__main__":
    main()
