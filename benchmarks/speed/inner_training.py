"""Times a problem whose step trains a small nnx network, and compares it with a vmap and scan jitted by hand.

Each program is a new process, import included, and the processes take turns. The program by hand does only 200 steps of
32 networks. The zoo runs 20 generations of `pes` with windows of 20 steps: it staggers the networks over the episode,
resets them, estimates, updates, and scores. `estimator_statistics` takes 64 samples of `pes`, 64 samples of `full_es`,
and the exact gradient.

Run: python -m benchmarks.speed.inner_training [rounds]
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import zoo
from benchmarks.timing import time_process

NUM_NETWORKS, NUM_STEPS, WINDOW = 32, 200, 20


class Network(nnx.Module):
    """The inner network."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(64, 32, rngs=rngs)
        self.outputs = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Returns the logits."""
        return self.outputs(jnp.tanh(self.hidden(inputs)))


class LearningRate(zoo.UnrolledProblem):
    """Learns the log rate of SGD on digits: its start and its change to the end."""

    images: jax.Array = zoo.leaf()
    labels: jax.Array = zoo.leaf()
    horizon: int | None = zoo.static(default=NUM_STEPS)
    window: int | None = zoo.static(default=WINDOW)
    num_score_episodes: int = zoo.static(default=4)

    def initial_solution(self, key: jax.Array) -> jax.Array:
        """Returns a constant rate of 0.1."""
        return jnp.array([jnp.log(0.1), 0.0])

    def reset(self, key: jax.Array) -> Any:
        """Returns a new network at time 0."""
        return nnx.split(Network(nnx.Rngs(key)))[1], jnp.zeros((), jnp.int32)

    def step(self, key: jax.Array, solution: jax.Array, inner: Any) -> tuple[Any, jax.Array, bool]:
        """Takes a step of SGD on a minibatch."""
        params, time = inner
        index = jax.random.randint(key, (64,), 0, len(self.labels))

        def loss(params):
            logits = nnx.merge(GRAPH, params)(self.images[index])
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, self.labels[index]))

        value, gradient = jax.value_and_grad(loss)(params)
        rate = jnp.exp(solution[0] + solution[1] * time / NUM_STEPS)
        return (jax.tree.map(lambda p, g: p - rate * g, params, gradient), time + 1), value, False


GRAPH = nnx.split(Network(nnx.Rngs(0)))[0]


def make() -> LearningRate:
    digits: Any = zoo.make_problem("supervised/digits")
    return LearningRate(images=digits.train_inputs.reshape(-1, 64), labels=digits.train_labels)


def by_hand() -> None:
    problem = make()

    @jax.jit
    def train(keys, solutions):
        def one(key, solution):
            def step(inner, key):
                inner, loss, _ = problem.step(key, solution, inner)
                return inner, loss

            return jnp.mean(jax.lax.scan(step, problem.reset(key), jax.random.split(key, NUM_STEPS))[1])

        return jax.vmap(one)(keys, solutions)

    keys = jax.random.split(jax.random.key(0), NUM_NETWORKS)
    jax.block_until_ready(train(keys, jnp.zeros((NUM_NETWORKS, 2))))


def by_zoo(num_scores: int = 20) -> None:
    zoo.run("pes", make(), num_generations=20, num_scores=num_scores)


def estimators() -> None:
    strategy = zoo.make_strategy("pes", population_size=NUM_NETWORKS)
    print(zoo.estimator_statistics(strategy, make(), num_samples=64, progress=False).bias)


SIDES = {"hand": by_hand, "zoo": by_zoo, "one score": lambda: by_zoo(1), "estimators": estimators}


def main(rounds: int = 5) -> None:
    module = ("-m", "benchmarks.speed.inner_training")
    seconds = np.array([[time_process(*module, side) for side in SIDES] for _ in range(rounds)])  # [round, side, 2]
    print("| program | wall, s | CPU s | ratio of CPU s to by hand | target |")
    print("| --- | --- | --- | --- | --- |")
    for i, (side, target) in enumerate(zip(SIDES, ("", "2.5", "2", "60 s"), strict=True)):
        wall, cpu = np.median(seconds[:, i], axis=0)
        ratio = np.median(seconds[:, i, 1] / seconds[:, 0, 1])
        print(f"| {side} | {wall:.1f} | {cpu:.1f} | {ratio:.2f} | {target} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1] in SIDES:
        SIDES[sys.argv[1]]()
    else:
        main(*(int(x) for x in sys.argv[1:]))
