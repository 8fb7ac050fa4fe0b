"""Compares gradient estimators for accuracy through an argmax and a vote (`supervised/accuracy_pipeline`).

Each estimator of the gradient of the logits trains the same network by Adam, with the same minibatches. Its learning
rate, and its sigma if it has one, are chosen on a fifth of the training data with two seeds. Then five seeds are
trained on all of it. `open_es` perturbs the weights instead, with the same number of images. A bad fixed smoothing
sigma is compared with `sigma="auto"`.

Run: python -m benchmarks.reproductions.accuracy_pipeline
"""

import itertools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import zoo
from benchmarks.reproductions.curves import FIGURES
from zoo.problems.supervised.accuracy_pipeline import AccuracyPipeline, error_of, one_scale, vote

NUM_SEEDS, NUM_TUNING_SEEDS, NUM_STEPS, NUM_SAMPLES = 5, 2, 1500, 32


def cosine_adam(learning_rate):
    """Returns Adam with a rate that rises over 200 steps and falls by a cosine."""

    def rate(step):
        return learning_rate * jnp.minimum((step + 1) / 200, 1) * (1 + jnp.cos(jnp.pi * step / NUM_STEPS)) / 2

    return optax.adam(rate)


class AutoSmoothing(AccuracyPipeline):
    """The pipeline with `sigma="auto"`: every backward pass finds a sigma for each image."""

    def _smooth(self, key, logits, labels):
        soft = zoo.smooth(
            vote,
            sigma="auto",
            num_samples=self.num_samples,
            antithetic=False,
            sigma_range=(0.01, 10.0),
            num_probes=8,
        )
        votes = jax.vmap(soft)(jax.random.split(key, len(labels)), one_scale(logits))
        return jax.vmap(error_of)(votes, labels).mean()


def train(problem, seed: int, strategy):
    return zoo.run(strategy, problem, seed, num_generations=NUM_STEPS, num_scores=15)


def descent(rate: float):
    return zoo.make_strategy("tbptt", population_size=1, learning_rate=rate, optimizer=cosine_adam)


def weights_es(rate: float, sigma: float):
    return zoo.make_strategy(
        "open_es", population_size=NUM_SAMPLES, learning_rate=rate, sigma=sigma, optimizer=cosine_adam
    )


def main() -> None:
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}; {NUM_SEEDS} seeds, {NUM_STEPS} steps\n")
    task: Any = zoo.make_problem("supervised/digits", hidden=(32,))
    train_part, held_out = task.hold_out(0.2)
    tuning_task = train_part.replace(test_inputs=held_out.train_inputs, test_labels=held_out.train_labels)
    rates, sigmas = (0.003, 0.01, 0.03), (0.5, 1.0, 2.0)
    methods = {
        "zoo.smooth": ("smooth", rates, sigmas),
        "zoo.smooth, sigma='auto'": ("auto", rates, (None,)),
        "zoo.smooth, sigma 0.01 (bad)": ("smooth", rates, (0.01,)),
        "straight-through": ("straight_through", rates, (None,)),
        "score function (REINFORCE)": ("score_function", rates, (None,)),
        "optax.perturbations": ("perturbations", rates, sigmas),
        "ES on the weights": ("open_es", (0.003, 0.01, 0.03), (0.02, 0.05, 0.1)),
        "cross-entropy (a smooth stand-in)": ("cross_entropy", rates, (None,)),
    }

    def make(kind: Any, rate: float, sigma: Any, task):
        if kind == "open_es":
            return AccuracyPipeline(task=task), weights_es(rate, sigma)
        settings = {"num_samples": NUM_SAMPLES, "task": task, **({} if sigma is None else {"smoothing": sigma})}
        if kind == "auto":
            return AutoSmoothing(**settings), descent(rate)
        return AccuracyPipeline(estimator=kind, **settings), descent(rate)

    print("| gradient of the accuracy by | end-to-end test accuracy | per seed | rate, sigma | s per run |")
    print("| --- | --- | --- | --- | --- |")
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axis = figure.subplots()
    means = {}
    for i, (name, (kind, some_rates, some_sigmas)) in enumerate(methods.items()):
        tuned = {}
        for rate, sigma in itertools.product(some_rates, some_sigmas):
            problem, strategy = make(kind, rate, sigma, tuning_task)
            tuned[rate, sigma] = np.mean([train(problem, s, strategy).score for s in range(NUM_TUNING_SEEDS)])
        rate, sigma = max(tuned, key=tuned.__getitem__)
        problem, strategy = make(kind, rate, sigma, task)
        runs = [train(problem, seed, strategy) for seed in range(NUM_SEEDS)]
        scores = [run.score for run in runs]
        means[name] = np.mean(scores)
        print(
            f"| {name} | {np.mean(scores):.3f} | {', '.join(f'{s:.3f}' for s in scores)} "
            f"| {rate:g}{'' if sigma is None else f', {sigma:g}'} | {np.mean([r.seconds for r in runs]):.1f} |",
            flush=True,
        )
        curves = np.stack([run.scores["test_accuracy"] for run in runs])
        steps = runs[0].scores["generation"]
        axis.plot(steps, np.median(curves, axis=0), color=f"C{i}", label=name)
        axis.fill_between(steps, curves.min(axis=0), curves.max(axis=0), color=f"C{i}", alpha=0.15, linewidth=0)
    others = max(means["straight-through"], means["score function (REINFORCE)"])
    print(f"\nzoo.smooth at least straight-through and score function: {means['zoo.smooth'] >= others}")
    print(f"sigma='auto' above the bad fixed sigma: {means[list(methods)[1]] > means[list(methods)[2]]}")
    axis.set_xlabel("steps (64 images each)")
    axis.set_ylabel("end-to-end test accuracy")
    axis.set_title(
        f"Accuracy of an argmax and a vote; median of {NUM_SEEDS} seeds, band: their range", fontsize="medium"
    )
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    FIGURES.mkdir(exist_ok=True)
    figure.savefig(FIGURES / "accuracy_pipeline.png", dpi=110)
    print(f"figure: {os.path.relpath(FIGURES / 'accuracy_pipeline.png')}")


if __name__ == "__main__":
    main()
