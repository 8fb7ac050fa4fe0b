"""Compares a learned optimizer, meta-trained by NRES, with SGD and Adam with tuned learning rates.

The inner task is the one of Li et al. 2023, arXiv 2304.12180 (MLP 32-32-32, GELU, batches of 128, 1 000 steps), on the
embedded digits. The loss is on a held-out fifth of the training data. Meta-training should take 10 minutes on 2 cores,
so it has fewer pairs and longer windows than the authors': 20 pairs, W = 5, sigma 0.01, Adam 3e-3 with cosine decay,
and new models and batches in every episode.

Run: python -m benchmarks.reproductions.learned_optimizer
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import zoo
from benchmarks.reproductions.curves import FIGURES
from zoo.problems.unrolled.inner_training import InnerTraining, InnerTrainingState

NUM_UPDATES = 4000
WINDOW = 5
NUM_PAIRS = 20
NUM_TEST_MODELS = 10
GRIDS = {
    "sgd": (0.03, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0),
    "adam": (0.001, 0.003, 0.005, 0.01, 0.02, 0.03),
}


class HandDesigned(InnerTraining):
    """Inner training with an optax optimizer. The solution is its log learning rate."""

    horizon: int | None = zoo.static(default=1000, at_least=1)
    hidden: tuple[int, ...] = zoo.static(default=(32, 32, 32))
    activation: str = zoo.static(default="gelu")
    held_out: float = zoo.number(default=0.2, at_least=0)
    optimizer: str = zoo.static(default="sgd")

    def initial_solution(self, key):
        """Returns the log of a rate of 0.1."""
        return jnp.log(0.1)

    def init_optimizer(self, params):
        """Returns the optimizer's initial state."""
        return getattr(optax, self.optimizer)(1.0).init(params)

    def update(self, solution, gradient, state: InnerTrainingState):
        """Takes a step of the optimizer."""
        transformation = getattr(optax, self.optimizer)(jnp.exp(solution))
        updates, optimizer_state = transformation.update(gradient, state.optimizer_state, state.params)
        return optax.apply_updates(state.params, updates), optimizer_state


def clipped_adam(learning_rate) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(learning_rate, NUM_UPDATES, 0.03)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


@functools.partial(jax.jit, static_argnames="num_models")
def held_out_curves(problem: InnerTraining, solution, key, *, num_models: int) -> jax.Array:
    """Trains fresh models, and returns the held-out loss at every step, `[num_models, horizon]`."""
    problem = problem.replace(seed=None)

    def train(key):
        def step(inner, _):
            inner, loss, _ = problem.step(key, solution, inner)
            return inner, loss

        return jax.lax.scan(step, problem.reset(key), None, length=problem.horizon)[1]

    return jax.lax.map(train, jax.random.split(key, num_models))


def main() -> None:
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}\n")
    key_tune, key_test = jax.random.split(jax.random.key(1))
    curves, labels = {}, {}
    for name, grid in GRIDS.items():
        problem = HandDesigned(optimizer=name)
        tuned = {rate: held_out_curves(problem, jnp.log(rate), key_tune, num_models=5).mean() for rate in grid}
        print(f"{name}, mean held-out loss by rate: " + ", ".join(f"{r:g}: {v:.3f}" for r, v in tuned.items()))
        best = min(tuned, key=lambda rate: float(jnp.nan_to_num(tuned[rate], nan=jnp.inf)))
        curves[name] = held_out_curves(problem, jnp.log(best), key_test, num_models=NUM_TEST_MODELS)
        labels[name] = f"{name.upper() if name == 'sgd' else 'Adam'}, tuned ({best:g})"

    # Few members at a time fit into the processor's caches.
    problem = zoo.make_problem(
        "unrolled/learned_optimizer", window=WINDOW, seed=None, member_batch_size=8, num_score_episodes=1
    )
    strategy = zoo.make_strategy(
        "nres", population_size=2 * NUM_PAIRS, sigma=0.01, learning_rate=3e-3, optimizer=clipped_adam
    )
    clock = time.perf_counter()
    result = zoo.run(
        strategy,
        problem,
        num_generations=NUM_UPDATES,
        num_scores=8,
        callback=lambda p: print(f"update {p.generation}, {p.seconds:.0f} s: {p.metrics}", flush=True),
    )
    total = time.perf_counter() - clock
    curves["nres"] = held_out_curves(problem, result.mean, key_test, num_models=NUM_TEST_MODELS)
    labels["nres"] = "learned by NRES"

    print(
        f"\nMeta-training: {NUM_UPDATES} updates, {result.num_steps:,} steps, {result.seconds:.0f} s "
        f"({total:.0f} s with compilation and scoring).\n"
    )
    print(f"| inner optimizer | mean held-out loss over 1 000 steps, {NUM_TEST_MODELS} fresh models | last 100 steps |")
    print("| --- | --- | --- |")
    for name, curve in curves.items():
        mean, last = np.mean(curve, axis=1), np.mean(curve[:, -100:], axis=1)
        print(f"| {labels[name]} | {_mean_and_error(mean)} | {_mean_and_error(last)} |")

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    for i, (name, curve) in enumerate(curves.items()):
        smooth = np.stack([np.convolve(c, np.ones(20) / 20, mode="valid") for c in np.asarray(curve)])
        low, middle, high = np.quantile(smooth, (0.25, 0.5, 0.75), axis=0)
        steps = np.arange(middle.size) + 20
        axis.plot(steps, middle, color=f"C{i}", label=labels[name])
        axis.fill_between(steps, low, high, color=f"C{i}", alpha=0.2, linewidth=0)
    axis.set_yscale("log")
    axis.set_xlabel("inner step")
    axis.set_ylabel("held-out loss (mean of 20 steps)")
    axis.set_title(f"Training on digits; median of {NUM_TEST_MODELS} fresh models, band: quartiles", fontsize="medium")
    axis.grid(alpha=0.3)
    axis.legend()
    FIGURES.mkdir(exist_ok=True)
    figure.savefig(FIGURES / "learned_optimizer.png", dpi=110)


def _mean_and_error(values: np.ndarray) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.3f}"


if __name__ == "__main__":
    main()
