"""Sparse from the first step (Lenc et al. 2019, arXiv 1906.03139): weights by gradient descent, masks by ES.

The networks are MLPs that keep 10 % or 5 % of each layer's weights. `hybrid` trains the weights by Adam, and the scores
that decide the masks by OpenAI-ES with 8 members. It is compared with the dense network, with gradual magnitude pruning
(Zhu, Gupta 2017, arXiv 1710.01878; the cubic schedule), which starts dense, and with a fixed random mask. The last
control is hybrid with a random sign of the fitness in each generation: its masks move by the same amount, but in no
direction. Every rate is chosen on a fifth of the training data with two seeds. Then five seeds are trained on all of
it. All rates decay by a cosine.

Run: python -m benchmarks.reproductions.sparse [--mnist DATA_DIR]
"""

import argparse
import functools
import itertools
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import zoo
from benchmarks.reproductions.curves import FIGURES
from zoo.problems.supervised.classification import Classification
from zoo.problems.supervised.sparse import SparseNetwork, num_kept, top_masks
from zoo.strategies.gradient.open_es import OpenES

NUM_SEEDS, NUM_TUNING_SEEDS = 5, 2
NUM_STEPS = {"digits": 4000, "mnist": 2000}
HIDDEN = {"digits": (128, 64), "mnist": (64, 32)}
DENSITIES = (0.1, 0.05)
WEIGHT_RATES = (0.001, 0.003, 0.01)
HYBRID_RATES = {"digits": (0.003, 0.01), "mnist": (0.003,)}
POPULATION_SIZE = 8


@functools.cache
def cosine_adam(num_steps: int):
    return lambda learning_rate: optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))


class RandomSign(OpenES):
    """OpenAI-ES with a random sign of the fitness in every generation, so that masks move in no direction."""

    def estimate(self, state, population, evaluation):
        """Returns the estimate of `open_es`, or its negative."""
        sign = jax.random.rademacher(jax.random.fold_in(jax.random.key(0), state.generation), ())
        return jax.tree.map(lambda g: sign * g, super().estimate(state, population, evaluation))


def run_zoo(strategy, problem: Classification, seed: int, num_steps: int) -> float:
    return zoo.run(strategy, problem, seed, num_generations=num_steps, num_scores=1).score


def descend(problem: Classification, seed: int, num_steps: int, rate: float) -> float:
    """Trains by plain gradient descent. The masks of a sparse network do not change."""
    strategy = zoo.make_strategy("tbptt", population_size=1, learning_rate=rate, optimizer=cosine_adam(num_steps))
    return run_zoo(strategy, problem, seed, num_steps)


def hybrid(problem: Classification, seed: int, num_steps: int, rate: float, score_rate: float, sigma, base=OpenES):
    scores = base(
        population_size=POPULATION_SIZE, sigma=sigma, learning_rate=score_rate, optimizer=cosine_adam(num_steps)
    )
    strategy = zoo.make_strategy(
        "hybrid", base=scores, es_leaves="scores", learning_rate=rate, optimizer=cosine_adam(num_steps)
    )
    return run_zoo(strategy, problem, seed, num_steps)


@functools.partial(jax.jit, static_argnames=("num_steps", "density"))
def _prune_gradually(problem: Classification, key, rate, *, num_steps: int, density: float):
    params = problem.initial_solution(key)
    transformation = cosine_adam(num_steps)(rate)
    every = num_steps // 100

    def masks(params, step):
        progress = jnp.clip((step / num_steps - 0.1) / 0.6, 0, 1)
        current = density + (1 - density) * (1 - progress) ** 3

        def mask(w):
            final = num_kept(w.size, density)
            count = jnp.where(progress >= 1, final, jnp.maximum(jnp.round(w.size * current).astype(int), final))
            return top_masks([jnp.abs(w)], [count])[0] if w.ndim >= 2 else jnp.ones(w.shape, bool)

        return jax.tree.map(mask, params)

    def body(carry, step):
        params, state, mask = carry
        mask = jax.lax.cond(step % every == 0, lambda: masks(params, step), lambda: mask)
        params = jax.tree.map(jnp.multiply, params, mask)
        gradient = jax.grad(lambda p: problem.fitness(jax.random.fold_in(key, step), p))(params)
        gradient = jax.tree.map(jnp.multiply, gradient, mask)
        updates, state = transformation.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state, mask), None

    mask = jax.tree.map(lambda w: jnp.ones(w.shape, bool), params)
    (params, _, mask), _ = jax.lax.scan(body, (params, transformation.init(params), mask), jnp.arange(num_steps))
    params = jax.tree.map(jnp.multiply, params, mask)
    kept = sum(jnp.count_nonzero(w) for w in jax.tree.leaves(params) if w.ndim >= 2)
    return problem.score(key, params)["test_accuracy"], kept


def prune_gradually(problem: Classification, seed: int, num_steps: int, rate: float, density: float) -> float:
    accuracy, kept = _prune_gradually(problem, jax.random.key(seed), rate, num_steps=num_steps, density=density)
    sizes = [x.size for x in jax.tree.leaves(problem.initial_solution(jax.random.key(0))) if x.ndim >= 2]
    if kept > sum(num_kept(size, density) for size in sizes):
        raise RuntimeError(f"{kept} weights are left at density {density}")
    return float(accuracy)


def tune(train, problem: Classification, num_steps: int, *grids):
    """Returns the settings with the best mean accuracy on the held-out fifth of the training data."""
    train_part, held_out = problem.hold_out(0.2)
    problem = train_part.replace(test_inputs=held_out.train_inputs, test_labels=held_out.train_labels)
    scores = {
        settings: np.mean([train(problem, seed, num_steps, *settings) for seed in range(NUM_TUNING_SEEDS)])
        for settings in itertools.product(*grids)
    }
    return max(scores, key=scores.__getitem__)


def compare(name: str, dense: Classification, axis) -> None:
    num_steps = NUM_STEPS[name]
    methods = {}
    for density in DENSITIES:
        sparse = dense.replace(network=SparseNetwork(dense.network, density))
        prune = functools.partial(prune_gradually, density=density)
        random_sign = functools.partial(hybrid, base=RandomSign)
        score_grids = (HYBRID_RATES[name], (0.01, 0.03, 0.1), (0.3,))
        methods = {
            "dense": (descend, dense, (WEIGHT_RATES,)),
            "gradual magnitude pruning": (prune, dense, (WEIGHT_RATES,)),
            "hybrid": (hybrid, sparse, score_grids),
            "fixed random mask": (descend, sparse, (WEIGHT_RATES,)),
            "hybrid, random sign": (random_sign, sparse, None),
        }
        settings, means = (), {}
        for i, (method, (train, problem, grids)) in enumerate(methods.items()):
            if grids is not None:  # the control uses the settings of hybrid
                chosen = tune(train, problem, num_steps, *grids)
                settings = chosen if method == "hybrid" else settings
            else:
                chosen = settings
            clock = time.perf_counter()
            scores = [train(problem, seed, num_steps, *chosen) for seed in range(NUM_SEEDS)]
            seconds = (time.perf_counter() - clock) / NUM_SEEDS
            means[method] = np.mean(scores)
            text = ", ".join(f"{s:.3f}" for s in scores)
            print(
                f"| {name} | {density:.0%} | {method} | {np.mean(scores):.3f} | {text} "
                f"| {', '.join(f'{c:g}' for c in chosen)} | {seconds:.0f} |",
                flush=True,
            )
            x = np.arange(NUM_SEEDS) * 0.02 + i + (0.5 if density == DENSITIES[1] else 0.1)
            axis.plot(x, scores, ".", color=f"C{i}", markersize=7)
            axis.hlines(np.mean(scores), i + (0.45 if density == DENSITIES[1] else 0.05), x[-1] + 0.05, color=f"C{i}")
        order = list(means.values())
        checks = {
            "order holds (dense >= pruning >= hybrid > fixed > random sign)": order[0] >= order[1] >= order[2]
            and order[2] > order[3] > order[4],
            "hybrid within 2 points of pruning": means["gradual magnitude pruning"] - means["hybrid"] <= 0.02,
            "hybrid 8 points above the fixed mask": means["hybrid"] - means["fixed random mask"] >= 0.08,
        }
        print("\n" + "; ".join(f"{what}: {'yes' if holds else 'no'}" for what, holds in checks.items()) + "\n")
    axis.set_xticks(np.arange(5) + 0.35, [m.replace(" ", "\n", 1) for m in methods], fontsize="small")
    axis.set_title(f"{name}: left {DENSITIES[0]:.0%} kept, right {DENSITIES[1]:.0%}", fontsize="medium")
    axis.set_ylabel("test accuracy")
    axis.grid(axis="y", alpha=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description="Sparse from the first step.")
    parser.add_argument("--mnist", metavar="DATA_DIR", help="Use MNIST from this folder. Defaults to digits.")
    arguments = parser.parse_args()
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}; {NUM_SEEDS} seeds\n")
    name, folder = ("mnist", {"data_dir": arguments.mnist}) if arguments.mnist else ("digits", {})
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    print("| data | kept | method | mean test accuracy | per seed | rates: weights, scores; sigma | s per run |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    problem = zoo.make_problem(f"supervised/{name}", hidden=HIDDEN[name], **folder)
    compare(name, problem, figure.subplots())  # pyright: ignore[reportArgumentType] - these ids make Classification
    figure.suptitle("Sparse networks: test accuracy, one dot per seed, a line at the mean", fontsize="medium")
    FIGURES.mkdir(exist_ok=True)
    figure.savefig(FIGURES / f"sparse_{name}.png", dpi=110)
    print(f"figure: {os.path.relpath(FIGURES / f'sparse_{name}.png')}")


if __name__ == "__main__":
    main()
