"""Measures the error of the gradient of `zoo.smooth` against the number of dimensions and against sigma.

The block is the accuracy of an argmax, 1[argmax(W x) = label], whose gradient is zero wherever it exists. W has
orthonormal rows, so the exact smoothed gradient follows from the smoothed gradient of the logits, which is a
one-dimensional integral.

`python -m benchmarks.reproductions.smooth_dimension` prints the tables and draws figures/smooth_dimension.png.
"""

import os

# For small factorisations on a shared machine, threads of the linear algebra library would wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm

import zoo
from benchmarks.reproductions.curves import FIGURES

NUM_DIMS = (4, 16, 64, 256, 1024, 4096)
SIGMAS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
LOGITS = np.array([0.4, 0.2, 0.0, -0.4])  # for the first comparison; the first label is right
MORE_LOGITS = np.linspace(1.0, -0.8, 10)  # for the second comparison
SIGMA = 0.5

ESTIMATORS: dict[str, dict[str, Any]] = {
    "plain": {"antithetic": False, "baseline": "none"},
    "value": {"antithetic": False, "baseline": "value"},
    "leave-one-out": {"antithetic": False, "baseline": "leave_one_out"},
    "pairs": {"antithetic": True},
    "orthogonal, leave-one-out": {"antithetic": False, "sampler": "orthogonal"},
    "orthogonal, pairs": {"antithetic": True, "sampler": "orthogonal"},
    "Sobol, leave-one-out": {"antithetic": False, "sampler": "sobol"},
    "Sobol, pairs": {"antithetic": True, "sampler": "sobol"},
}
SUBSPACE = {
    "subspace of 8, leave-one-out": {"antithetic": False},
    "subspace of 8, orthogonal, leave-one-out": {"antithetic": False, "sampler": "orthogonal"},
}
STYLES = {"plain": ":", "value": ":", "leave-one-out": "-", "pairs": "--"}


def smoothed_gradient(logits: np.ndarray, sigma: float) -> np.ndarray:
    """Returns the gradient of P(argmax(logits + sigma eps) = 0), `[num_logits]`."""
    t = np.linspace(logits.min() - 9 * sigma, logits.max() + 9 * sigma, 4001)[:, None]
    below, density = norm.cdf((t - logits) / sigma), norm.pdf((t - logits) / sigma) / sigma
    gradient = np.zeros(len(logits))
    for j in range(1, len(logits)):
        others = np.delete(below, [0, j], axis=1).prod(axis=1)
        gradient[j] = -np.trapezoid(density[:, 0] * density[:, j] * others, t[:, 0])
    gradient[0] = -gradient.sum()
    return gradient


def is_right(logits: jax.Array) -> jax.Array:
    return (jnp.argmax(logits) == 0).astype(float)


def errors(estimates: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """Returns the mean squared error over the gradient's squared length, and the mean cosine with the gradient."""
    lengths = np.linalg.norm(estimates, axis=1) * np.linalg.norm(exact, axis=-1)
    cosines = np.sum(estimates * exact, axis=1) / np.where(lengths > 0, lengths, 1)
    relative = np.sum((estimates - exact) ** 2, axis=1) / np.sum(exact**2, axis=-1)
    return float(relative.mean()), float(cosines.mean())


def against_dimension(num_samples: int, all_dims: Sequence[int]) -> dict[str, list[tuple[float, float]]]:
    """Returns relative mean squared error and cosine, for every estimator and number of dimensions."""
    results: dict[str, list[tuple[float, float]]] = {}
    for dim in all_dims:
        rng = np.random.default_rng(dim)
        rows = np.linalg.qr(rng.standard_normal((dim, len(LOGITS))))[0].T
        exact = smoothed_gradient(LOGITS, SIGMA) @ rows
        directions = np.concatenate([rows, rng.standard_normal((4, dim))]).astype(np.float32)
        x, matrix = jnp.asarray(LOGITS @ rows, float), jnp.asarray(rows, float)
        num_trials = min(300, max(30, 61_440 // dim // 10 * 10))  # at high dimension one trial already averages much
        keys = jax.random.split(jax.random.key(dim), num_trials)
        for name, settings in (ESTIMATORS | SUBSPACE).items():
            subspace = directions if name in SUBSPACE else None
            soft = zoo.smooth(
                lambda x, w: is_right(w @ x), sigma=SIGMA, num_samples=num_samples, subspace=subspace, **settings
            )

            @jax.jit
            def estimate(keys: jax.Array, x: jax.Array, w: jax.Array, soft: Any = soft) -> jax.Array:
                gradient = jax.grad(soft, argnums=1)
                return jax.lax.map(lambda key: gradient(key, x, w), keys, batch_size=10)

            estimates = np.asarray(estimate(keys, x, matrix), np.float64)
            results.setdefault(name, []).append(errors(estimates, exact))
    return results


def against_sigma(num_samples: int, num_trials: int) -> tuple[np.ndarray, dict[str, list[float]], tuple[float, float]]:
    """Returns change rates, errors at the fixed sigmas and with `"auto"`, and the sigma and change rate of `"auto"`."""
    x = jnp.asarray(MORE_LOGITS, float)
    keys = jax.random.split(jax.random.key(0), num_trials)
    many = zoo.smooth(is_right, sigma="auto", num_probes=20_000)
    rate = jax.jit(lambda sigma: many.change_rate(jax.random.key(1), sigma, x))
    found = np.asarray(jax.jit(jax.vmap(zoo.smooth(is_right, sigma="auto").find_sigma, (0, None)))(keys, x))
    exact = np.stack([smoothed_gradient(MORE_LOGITS, sigma) for sigma in found])
    results: dict[str, list[float]] = {}
    for name, settings in ESTIMATORS.items():
        soft = zoo.smooth(is_right, sigma="auto", num_samples=num_samples, **settings)
        gradient = jax.grad(lambda x, key, sigma, soft=soft: soft(key, x, sigma=sigma))
        estimate = jax.jit(jax.vmap(gradient, (None, 0, 0)))
        row = []
        for sigma in SIGMAS:
            estimates = np.asarray(estimate(x, keys, jnp.full(num_trials, sigma)), np.float64)
            row.append(errors(estimates, smoothed_gradient(MORE_LOGITS, sigma))[0])
        # With these keys "auto" finds the same sigma as find_sigma, and the samples are independent of it.
        row.append(errors(np.asarray(estimate(x, keys, jnp.asarray(found)), np.float64), exact)[0])
        results[name] = row
    middle = float(np.median(found))
    return np.array([rate(s) for s in SIGMAS]), results, (middle, float(np.mean([rate(s) for s in found])))


def print_table(title: str, columns: list[str], rows: dict[str, list[float]]) -> None:
    print(f"\n{title}\n\n| estimator | {' | '.join(columns)} |")
    print("| --- " * (len(columns) + 1) + "|")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(f'{value:.3g}' for value in values)} |", flush=True)


def draw(
    by_dimension: dict[str, list[tuple[float, float]]],
    rates: np.ndarray,
    by_sigma: dict[str, list[float]],
    auto: tuple[float, float],
    num_samples: int,
) -> None:
    figure = Figure(figsize=(15, 4.8), layout="constrained")
    axes = figure.subplots(1, 3)
    names = list(by_dimension)
    for i, name in enumerate(names):
        style = {"color": f"C{i}", "linestyle": STYLES.get(name.split(", ")[-1], "-"), "marker": "o", "markersize": 3}
        mse, cosine = np.array(by_dimension[name]).T
        axes[0].plot(NUM_DIMS, mse, label=name, **style)
        axes[1].plot(NUM_DIMS, cosine, **style)
        if name in by_sigma:
            axes[2].plot(SIGMAS, by_sigma[name][:-1], **style)
            axes[2].plot(auto[0], by_sigma[name][-1], color=f"C{i}", marker="*", markersize=11)
    axes[2].axvline(auto[0], color="black", linewidth=0.8, linestyle=":")
    twin = axes[2].twinx()
    twin.plot(SIGMAS, rates, color="grey", linewidth=4, alpha=0.4, label="outcomes changed")
    twin.set_ylim(0, 1)
    twin.set_ylabel("share of outcomes changed (grey band)")
    for axis in axes:
        axis.set_xscale("log")
        axis.grid(alpha=0.3)
    for axis in axes[:2]:
        axis.set_xscale("log", base=4)
        axis.set_xlabel("dimensions of x")
        axis.set_xticks(NUM_DIMS, [str(dim) for dim in NUM_DIMS])
    axes[0].set_yscale("log")
    axes[2].set_yscale("log")
    axes[0].set_ylabel("relative mean squared error")
    axes[1].set_ylabel("cosine with the smoothed gradient")
    axes[2].set_ylabel("relative mean squared error")
    axes[2].set_xlabel("sigma (stars: sigma='auto')")
    axes[0].set_title(f"4 logits, sigma = {SIGMA}", fontsize="medium")
    axes[1].set_title(f"4 logits, sigma = {SIGMA}", fontsize="medium")
    axes[2].set_title("10 logits, 10 dimensions", fontsize="medium")
    figure.suptitle(f"Gradient of the accuracy of an argmax from {num_samples} samples")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize="small")
    FIGURES.mkdir(exist_ok=True)
    path = FIGURES / "smooth_dimension.png"
    figure.savefig(path, dpi=110)
    print(f"\nfigure: {os.path.relpath(path)}")


def main() -> None:
    curves = {}
    for num_samples, all_dims in ((64, NUM_DIMS), (256, NUM_DIMS[1::2])):
        curves[num_samples] = against_dimension(num_samples, all_dims)
        columns = [f"d = {dim}" for dim in all_dims]
        for i, quantity in enumerate(("relative mean squared error", "cosine with the exact gradient")):
            rows = {name: [pair[i] for pair in pairs] for name, pairs in curves[num_samples].items()}
            print_table(f"{num_samples} samples, {quantity}", columns, rows)
    rates, by_sigma, auto = against_sigma(64, 1000)
    columns = [f"sigma = {sigma}" for sigma in SIGMAS] + [f"auto (median {auto[0]:.2f})"]
    share = {"(share of outcomes changed)": [*rates, auto[1]]}
    print_table("10 dimensions, 64 samples, relative mean squared error", columns, share | by_sigma)
    draw(curves[64], rates, by_sigma, auto, 64)


if __name__ == "__main__":
    main()
