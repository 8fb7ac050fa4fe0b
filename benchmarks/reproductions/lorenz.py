"""Lorenz (Li et al. 2023, arXiv 2304.12180): variance at the initial parameters, and training.

The ES estimators have the authors' settings: 200 pairs (full ES 10), sigma 0.04, T = 2 000, W = 100, SGD, and the
authors' learning rates. These settings differ (the authors' in parentheses): all methods take 2 000 updates (PES and
TBPTT 10 000, NRES and TES 5 000), TBPTT has 20 workers (200), BPTT has the rate 1e-9 (1e-8, for 1 000 updates), there
are 3 seeds (5), and the test is the smoothed loss.

Run: python -m benchmarks.reproductions.lorenz
"""

import functools

import jax
import jax.numpy as jnp
import optax

import zoo
from benchmarks.reproductions.curves import FIGURES, Method, draw, run_methods
from zoo.problems.unrolled.lorenz import Lorenz

SIGMA = 0.04
NUM_SEEDS = 3


class SmoothedLorenz(Lorenz):
    """Lorenz with one more score: the smoothed loss, which evolution strategies minimise."""

    num_smoothing_samples: int = zoo.static(default=1000, at_least=1)

    def score(self, key, solution):
        """Returns the scores of Lorenz and the smoothed loss."""

        def perturbed(key):
            key_fitness, *keys = jax.random.split(key, 3)
            return self.fitness(
                key_fitness,
                {name: x + SIGMA * jax.random.normal(k) for k, (name, x) in zip(keys, solution.items(), strict=True)},
            )

        losses = jax.vmap(perturbed)(jax.random.split(key, self.num_smoothing_samples))
        return {**super().score(key, solution), "smoothed": jnp.mean(losses)}


def sgd_then_slower(learning_rate) -> optax.GradientTransformation:
    return optax.sgd(optax.piecewise_constant_schedule(learning_rate, {1000: 0.1}))


def variances(num_samples: int = 4000) -> None:
    """Prints the total variance of one pair's estimate at the initial parameters."""
    problem = zoo.make_problem("unrolled/lorenz")
    make = functools.partial(zoo.make_strategy, problem=problem)
    strategies = {
        "PES (K = 100)": make("pes", population_size=2),
        "GPES (K = 500)": make("gpes", population_size=2, noise_period=5),
        "NRES (K = 2000)": make("nres", population_size=2),
        "FullES": make("full_es", population_size=2),
        "TES": make("tes", population_size=3),
        "TBPTT": make("tbptt", population_size=1),
        "BPTT": make("bptt", population_size=1),
    }
    expected = {"PES (K = 100)": "1.55e8", "GPES (K = 500)": "3.4e7", "NRES (K = 2000)": "1.36e7", "FullES": "4.2e6"}
    print(f"One worker's estimate at the initial parameters, {num_samples} episodes each:\n")
    print("| method | total variance | reference | variance x steps | cosine | bias (by chance) |")
    print("| --- | --- | --- | --- | --- | --- |")
    statistics = {}
    for name, strategy in strategies.items():
        s = zoo.estimator_statistics(strategy, problem, num_samples=num_samples, sigma=SIGMA, num_exact=0)
        statistics[name] = s
        print(
            f"| {name} | {s.total_variance:.3g} ± {s.total_variance_error:.1g} | "
            f"{expected.get(name, '')} | {s.variance_per_step:.2g} | {s.cosine:.2f} | "
            f"{s.bias:.0f} ({s.bias_by_chance:.0f}) |",
            flush=True,
        )
    ratio = statistics["PES (K = 100)"].total_variance / statistics["NRES (K = 2000)"].total_variance
    print(f"\nvariance ratio PES / NRES: {ratio:.1f} (target: 9 to 13)")
    FIGURES.mkdir(exist_ok=True)
    zoo.plot_estimators(statistics).savefig(FIGURES / "lorenz_estimators.png", dpi=110)


def training() -> None:
    """Trains with every method and draws the smoothed loss."""
    problem = SmoothedLorenz()

    def make(id: str, population_size: int, learning_rate: float, **others):
        sampled = {} if id in ("tbptt", "bptt") else {"sigma": SIGMA}
        chosen = {"optimizer": optax.sgd, **sampled, **others}
        return zoo.make_strategy(id, population_size=population_size, learning_rate=learning_rate, **chosen)

    window, horizon = problem.window or 0, problem.horizon or 0
    methods = {
        "NRES": Method(make("nres", 400, 1e-5), problem, 2000, window),
        "PES": Method(make("pes", 400, 1e-5, optimizer=sgd_then_slower), problem, 2000, window),
        "GPES (K = 500)": Method(make("gpes", 400, 1e-5, noise_period=5), problem, 2000, window),
        "ES-Single": Method(make("es_single", 400, 1e-5), problem, 2000, window),
        "TES": Method(make("tes", 600, 3e-4), problem, 2000, window),
        "FullES (10 pairs)": Method(make("full_es", 20, 3e-5), problem, 2000, horizon),
        "TBPTT": Method(make("tbptt", 20, 3e-4), problem, 2000, window),
        "BPTT": Method(make("bptt", 1, 1e-9), problem, 2000, horizon),
    }
    print(f"\nTraining, {NUM_SEEDS} seeds:\n")
    results = run_methods(methods, num_seeds=NUM_SEEDS, num_scores=100, metric="smoothed")
    for name in ("NRES", "TES"):
        reached = [bool((run.scores["smoothed"][run.scores["generation"] <= 1000] < 55).any()) for run in results[name]]
        print(f"\n{name}: smoothed loss below 55 within 1 000 updates: {sum(reached)} of {NUM_SEEDS} seeds")
    truth = {"log_a": jnp.log(problem.a), "log_r": jnp.log(problem.r)}
    draw(
        "lorenz.png",
        methods,
        results,
        metric="smoothed",
        label="smoothed loss (sigma = 0.04)",
        title="Lorenz",
        lines={"at the true parameters": float(jax.jit(problem.score)(jax.random.key(0), truth)["smoothed"])},
        limits=(40, 1000),
    )


if __name__ == "__main__":
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}\n")
    variances()
    training()
