"""Guided ES (Maheswaranathan et al. 2019, arXiv 1806.10230): a biased gradient as a guide.

The first experiment is the perturbed quadratic with the authors' settings: f = |A x - b|^2 / (2 m), n = 1 000,
m = 2 000, Gaussian A and b. The surrogate is the gradient plus its norm times a fixed unit vector (the bias) and 1.5
times a fresh random unit vector (the noise). There is one antithetic pair, sigma 0.1, alpha 0.5, and 10 000 steps of
SGD at rate 0.2, or 0.005 for descent on the surrogate. Beta is 2 with noise. The authors' notebook runs vanilla ES with
beta 1, at half the step, so the table shows both. The search uses y = x - x*, where the gradient is H y. Fitness is
only the part of f that is odd in the perturbation. Antithetic differences are the same, and they are exact, while
float32 differences of f would be lost in round-off.

The second table compares the closed form for alpha and beta with simulation. In the second experiment a network sets
the learning rate of 15 inner steps, and the surrogate is the gradient through the first step alone.

Run: python -m benchmarks.reproductions.guided_es
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
from zoo import Problem, static
from zoo.problems.networks import MLP
from zoo.strategies.gradient.guided_es import GuidedES, optimal_coefficients

NUM_DIMS, NUM_ROWS, NUM_STEPS, NUM_SEEDS = 1000, 2000, 10_000, 5
NUM_POINTS = 100
RATES = (0.05, 0.2, 0.5, 1.0)  # for methods whose rate the paper does not give; the table shows the best
NUM_UPDATES, INNER_STEPS = 500, 15


def quadratic(seed: int):
    key_a, key_b = jax.random.split(jax.random.key(seed))
    a, b = jax.random.normal(key_a, (NUM_ROWS, NUM_DIMS)), jax.random.normal(key_b, (NUM_ROWS,))
    hessian = a.T @ a / NUM_ROWS
    return hessian, -jnp.linalg.solve(hessian, a.T @ b / NUM_ROWS)


def surrogate_of(gradient, bias, noise, key):
    fresh = jax.random.normal(key, gradient.shape)
    return gradient + jnp.linalg.norm(gradient) * (bias + noise * fresh / jnp.linalg.norm(fresh))


@jax.jit
def descend(strategy, rates, hessians, starts, biases, noise, keys):
    """Runs a strategy at several rates on several problems. Returns f - f*, `[rates, problems, NUM_POINTS + 1]`."""

    def one(rate, hessian, start, bias, key):
        run = strategy.replace(learning_rate=rate)

        def step(state, key):
            key_ask, key_noise = jax.random.split(key)
            gradient = hessian @ run.mean(state)
            surrogate = surrogate_of(gradient, bias, noise, key_noise)
            population, state = run.ask(key_ask, state, lambda _: surrogate)
            return run.tell(state, population, (population - run.mean(state)) @ gradient), None

        def block(state, key):
            mean = run.mean(state)
            state, _ = jax.lax.scan(step, state, jax.random.split(key, NUM_STEPS // NUM_POINTS))
            return state, mean @ hessian @ mean / 2

        state, losses = jax.lax.scan(block, run.init(key, start), jax.random.split(key, NUM_POINTS))
        mean = run.mean(state)
        return jnp.append(losses, mean @ hessian @ mean / 2)

    on_problems = jax.vmap(one, in_axes=(None, 0, 0, 0, 0))
    return jax.vmap(on_problems, in_axes=(0, None, None, None, None))(rates, hessians, starts, biases, keys)


def perturbed_quadratic(axes) -> None:
    print("| variant | method | f - f* at the end, per seed (start: about 0.25) | settings |")
    print("| --- | --- | --- | --- |")
    hessians, starts = (jnp.stack(x) for x in zip(*[quadratic(seed) for seed in range(NUM_SEEDS)], strict=True))
    keys = jax.random.split(jax.random.key(100), NUM_SEEDS)
    biases = jax.vmap(lambda k: jax.random.normal(k, (NUM_DIMS,)))(keys)
    biases = biases / jnp.linalg.norm(biases, axis=1, keepdims=True)
    variants = ("bias and noise", 2.0, 1.5), ("bias alone", 1.0, 0.0)
    for axis, (variant, beta, noise) in zip(axes, variants, strict=True):
        sgd = {"population_size": 2, "optimizer": "sgd", "sigma": 0.1}
        methods = {
            "guided ES": ("guided_es", {**sgd, "alpha": 0.5, "beta": beta}, (0.2,)),
            "vanilla ES": ("guided_es", {**sgd, "alpha": 1.0, "beta": beta}, (0.2,)),
            "descent on the surrogate": ("tbptt", {"population_size": 1, "optimizer": "sgd"}, (0.005,)),
            "guided ES, rate tuned": ("guided_es", {**sgd, "alpha": 0.5, "beta": beta}, RATES),
            "vanilla ES, rate tuned": ("guided_es", {**sgd, "alpha": 1.0, "beta": beta}, RATES),
            "CV-ZOD, rate tuned": ("cv_zod", sgd, tuple(r / NUM_DIMS for r in RATES)),
            "self-guided ES, rate tuned": ("self_guided_es", sgd, tuple(r / NUM_DIMS for r in RATES)),
            "ASEBO, rate tuned": ("asebo", sgd, RATES),
        }
        if beta != 1:
            methods["vanilla ES, beta 1"] = ("guided_es", {**sgd, "alpha": 1.0, "beta": 1.0}, (0.2,))
        ends = {}
        for i, (name, (id, settings, rates)) in enumerate(methods.items()):
            strategy = zoo.make_strategy(id, **settings)
            all_curves = descend(strategy, jnp.asarray(rates), hessians, starts, biases, noise, keys)
            all_curves = np.nan_to_num(np.asarray(all_curves), nan=np.inf)
            best = int(np.argmin(np.median(all_curves[:, :, -1], axis=1)))
            best = rates[best], all_curves[best]
            rate, curves = best
            ends[name] = curves[:, -1]
            values = ", ".join(f"{v:.3g}" for v in curves[:, -1])
            of_beta = f"beta {settings['beta']:g}, " if "beta" in settings else ""
            print(f"| {variant} | {name} | {values} | {of_beta}rate {rate:g} |", flush=True)
            x = np.linspace(0, NUM_STEPS, NUM_POINTS + 1)
            axis.plot(x, np.median(curves, axis=0), color=f"C{i}", label=name)
            axis.fill_between(x, curves.min(axis=0), curves.max(axis=0), color=f"C{i}", alpha=0.2, linewidth=0)
        best_other = np.minimum(ends["vanilla ES"], ends["descent on the surrogate"])
        count = np.sum(ends["guided ES"] < best_other)
        print(f"\n{variant}: guided ES below both others on {count} of {NUM_SEEDS} seeds\n")
        axis.set_yscale("log")
        axis.set_ylim(1e-3, 1)
        axis.set_title(f"perturbed quadratic, {variant}", fontsize="medium")
        axis.set_xlabel("steps (2 evaluations each)")
        axis.set_ylabel("f - f*")
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False, fontsize="x-small", loc="lower left", ncols=2)


def closed_form() -> None:
    """Prints the mean squared error of the estimate of a unit gradient, by simulation and by formula."""
    n, num_samples = 100, 20_000
    print("| k | pairs | rho^2 | alpha: closed form | best of a simulated grid | error: closed form | simulated |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    alphas = np.linspace(0, 1, 21)
    for k, num_pairs in ((1, 1), (1, 8), (8, 1), (8, 8)):
        low, high = k / n, (k + 2 * num_pairs + 2) / (n + 2 * num_pairs + 2)
        for rho2 in (0.5 * low, (low + high) / 2, min(1.5 * high, 1.0)):
            inside = jnp.sqrt(rho2)
            gradient = jnp.zeros(n).at[0].set(inside).at[-1].set(jnp.sqrt(1 - rho2))

            @jax.jit
            def errors(alpha, beta, gradient=gradient, k=k, num_pairs=num_pairs):
                strategy = GuidedES(population_size=2 * num_pairs, subspace_dims=k, alpha=alpha, beta=beta, sigma=1.0)
                state = strategy.init(jax.random.key(0), jnp.zeros(n))
                state = state._replace(directions=jnp.eye(k, n))

                def one(key):
                    population, asked = strategy.ask(key, state, lambda _: jnp.eye(n)[0])
                    evaluation = zoo.Evaluation(population @ gradient, jnp.ones(2 * num_pairs, bool), jnp.asarray(2))
                    return jnp.sum((strategy.estimate(asked, population, evaluation) - gradient) ** 2)

                return jax.lax.map(one, jax.random.split(jax.random.key(1), num_samples), batch_size=1000)

            def best_beta(alpha, rho2=rho2, k=k, num_pairs=num_pairs):
                a = alpha / n + (1 - alpha) * rho2 / k
                b = alpha**2 / n**2 + rho2 * (2 * alpha * (1 - alpha) / (n * k) + (1 - alpha) ** 2 / k**2)
                return a, a / (b + (a + b) / num_pairs)

            grid = [float(jnp.mean(errors(alpha, best_beta(alpha)[1]))) for alpha in alphas]
            alpha, beta = (float(x) for x in optimal_coefficients(rho2, n, k, num_pairs))
            simulated = np.asarray(errors(alpha, beta))
            error = simulated.std() / np.sqrt(num_samples)
            print(
                f"| {k} | {num_pairs} | {rho2:.4f} | {alpha:.3f} | {alphas[int(np.argmin(grid))]:.2f} "
                f"| {1 - best_beta(alpha)[0] * beta:.4f} | {simulated.mean():.4f} ± {error:.4f} |",
                flush=True,
            )


class UnrolledRates(Problem):
    """A network sets the learning rate of gradient descent on a random quadratic, from its eigenvalues.

    Fitness is the mean log loss after `num_steps` steps. The surrogate is the gradient of the loss after
    `surrogate_steps` steps.
    """

    network: Any = static(default=MLP((32, 1), "tanh"))
    num_steps: int = static(default=INNER_STEPS, at_least=1)
    surrogate_steps: int = static(default=1, at_least=1)
    batch_size: int = static(default=8, at_least=1)

    def initial_solution(self, key):
        """Returns the network's parameters."""
        return self.network.init(key, jnp.zeros((1, 10)))

    def _loss(self, key, solution, num_steps):
        def one(key):
            key_h, key_x = jax.random.split(key)
            rows = jax.random.normal(key_h, (20, 10)) * jnp.exp(jax.random.normal(jax.random.fold_in(key_h, 1)))
            eigenvalues = jnp.linalg.eigvalsh(rows.T @ rows / 20)
            x = jax.random.normal(key_x, (10,))
            rate = jnp.exp(self.network.apply(solution, jnp.log(eigenvalues)[None])[0, 0] - 2)
            x = x * (1 - rate * eigenvalues) ** num_steps  # gradient descent, in the coordinates of the eigenvectors
            return jnp.log(jnp.sum(eigenvalues * x**2) / jnp.sum(eigenvalues) + 1e-12)

        return jnp.mean(jax.vmap(one)(jax.random.split(key, self.batch_size)))

    def fitness(self, key, solution):
        """Returns the mean log loss after all inner steps."""
        return self._loss(key, solution, self.num_steps)

    def gradient(self, key, solution):
        """Returns the gradient of the loss after the first inner steps."""
        return jax.grad(lambda x: self._loss(key, x, self.surrogate_steps))(solution)

    def score(self, key, solution):
        """Returns the fitness on held-out quadratics."""
        keys = jax.random.split(jax.random.key(12345), 64)
        return {"fitness": jnp.mean(jax.vmap(lambda k: self._loss(k, solution, self.num_steps))(keys))}


def unrolled(axis) -> None:
    print("\n| method | best rate, sigma | mean log loss on held-out quadratics, per seed | evaluations |")
    print("| --- | --- | --- | --- |")
    problem = UnrolledRates()
    small = {"population_size": 8, "shaping": "none"}
    lengths, per_parameter = (0.03, 0.3), (0.0015, 0.015)  # the same sizes in the two units of sigma, n = 385
    methods = {
        "guided ES": ("guided_es", small, lengths, problem),
        "guided ES, adaptive": ("guided_es", {**small, "adaptive": True}, lengths, problem),
        "guided ES, 4 surrogates": ("guided_es", {**small, "subspace_dims": 4}, lengths, problem),
        "vanilla ES": ("open_es", small, per_parameter, problem),
        "CV-ZOD": ("cv_zod", {"population_size": 8}, per_parameter, problem),
        "self-guided ES": ("self_guided_es", small, per_parameter, problem),
        "ASEBO": ("asebo", small, lengths, problem),
        "descent on the surrogate": ("tbptt", {"population_size": 4}, (None,), problem),
        "descent on the exact gradient": (
            "tbptt",
            {"population_size": 4},
            (None,),
            UnrolledRates(surrogate_steps=INNER_STEPS),
        ),
    }
    for i, (name, (id, settings, sigmas, problem)) in enumerate(methods.items()):
        best: Any = None
        for rate, sigma in itertools.product((0.003, 0.01), sigmas):
            sizes: dict[str, Any] = {} if sigma is None else {"sigma": sigma}
            strategy = zoo.make_strategy(id, **settings, **sizes, learning_rate=rate, optimizer=optax.adam)
            runs = [zoo.run(strategy, problem, s, num_generations=NUM_UPDATES, num_scores=25) for s in range(NUM_SEEDS)]
            curves = np.stack([run.scores["fitness"] for run in runs])
            if best is None or np.median(curves[:, -1]) < np.median(best[1][:, -1]):
                best = f"{rate:g}{'' if sigma is None else f', {sigma:g}'}", curves, runs[0]
        chosen, curves, run = best
        ends = ", ".join(f"{v:.2f}" for v in curves[:, -1])
        print(f"| {name} | {chosen} | {ends} | {run.num_steps:,} |", flush=True)
        x = run.scores["generation"]
        axis.plot(x, np.median(curves, axis=0), color=f"C{i}", label=name)
        axis.fill_between(x, curves.min(axis=0), curves.max(axis=0), color=f"C{i}", alpha=0.15, linewidth=0)
    axis.set_xlabel("updates (4 pairs, or 4 gradients, each)")
    axis.set_ylabel("mean log loss after 15 inner steps")
    axis.set_title("unrolled optimisation, surrogate of one step", fontsize="medium")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize="x-small", loc="upper right", ncols=2)
    axis.set_ylim(top=2)


def main() -> None:
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}\n")
    figure = Figure(figsize=(16, 4.6), layout="constrained")
    axes = figure.subplots(1, 3)
    perturbed_quadratic(axes[:2])
    closed_form()
    unrolled(axes[2])
    figure.suptitle(f"Guided ES; median of {NUM_SEEDS} seeds, band: their range", fontsize="medium")
    FIGURES.mkdir(exist_ok=True)
    figure.savefig(FIGURES / "guided_es.png", dpi=110)
    print(f"\nfigure: {os.path.relpath(FIGURES / 'guided_es.png')}")


if __name__ == "__main__":
    main()
