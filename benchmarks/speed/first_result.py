"""Compares the time to the first result of a new process, import and compilation included, with an evosax loop.

Each side is a new process: `zoo.run` with its held-out scores, and the shortest jitted evosax loop on the same task,
which does not score. The processes take turns, and each ratio is of two neighbours. CPU seconds cover the process with
all its threads. A busy machine changes them less than wall time.

Run: python -m benchmarks.speed.first_result [rounds]
"""

import sys
import tempfile
from typing import Any

import numpy as np

from benchmarks.timing import time_process

GENERATIONS = 20
POPULATION_SIZE = 64
TASKS = ("sphere", "CartPole", "digits")
STRATEGIES = ("open_es", "snes")


def zoo_side(id: str, task: str) -> None:
    import zoo

    problem = {"sphere": "blackbox/sphere", "CartPole": "rl/CartPole-v1", "digits": "supervised/digits"}[task]
    strategy = zoo.make_strategy(id, population_size=POPULATION_SIZE)
    print(zoo.run(strategy, problem, num_generations=GENERATIONS).metrics)


def evosax_side(strategy: str, task: str) -> None:
    import jax
    import jax.numpy as jnp
    import optax
    from evosax.algorithms import SNES, Open_ES

    solution, evaluate = {"sphere": sphere, "CartPole": cart_pole, "digits": digits}[task]()
    if strategy == "open_es":
        algorithm = Open_ES(population_size=POPULATION_SIZE, solution=solution, optimizer=optax.adam(0.01))
    else:
        algorithm = SNES(population_size=POPULATION_SIZE, solution=solution, optimizer=optax.sgd(1.0))
    params = algorithm.default_params

    @jax.jit
    def run(key):
        key_init, key_loop = jax.random.split(key)

        def generation(state, key):
            key_ask, key_evaluate, key_tell = jax.random.split(key, 3)
            population, state = algorithm.ask(key_ask, state, params)
            fitness = jax.vmap(evaluate, in_axes=(None, 0))(key_evaluate, population)
            state, _ = algorithm.tell(key_tell, population, fitness, state, params)
            return state, jnp.min(fitness)

        state = algorithm.init(key_init, solution, params)
        return jax.lax.scan(generation, state, jax.random.split(key_loop, GENERATIONS))

    _, best = jax.block_until_ready(run(jax.random.key(0)))
    print({"best fitness": float(best.min())})


def sphere():
    import jax.numpy as jnp

    return jnp.ones(10), lambda key, x: jnp.sum(x**2)


def cart_pole():
    import gymnax
    import jax
    import jax.numpy as jnp

    environment, params = gymnax.make("CartPole-v1")
    network: Any = _network(2)

    def episode(key, solution):
        key_reset, key_steps = jax.random.split(key)
        observation, state = environment.reset(key_reset, params)

        def step(carry, key):
            observation, state, alive = carry
            action = jnp.argmax(network.apply(solution, observation))
            observation, state, reward, done, _ = environment.step_env(key, state, action, params)
            return (observation, state, alive & ~done), reward * alive

        carry = (observation, state, True)
        rewards = jax.lax.scan(step, carry, jax.random.split(key_steps, params.max_steps_in_episode))[1]
        return -jnp.sum(rewards)

    return network.init(jax.random.key(0), jnp.zeros(4)), episode


def digits():
    import jax
    import jax.numpy as jnp
    import optax
    import sklearn.datasets

    data: Any = sklearn.datasets.load_digits()
    images, labels = jnp.asarray(data.data / 16, jnp.float32), jnp.asarray(data.target)
    network: Any = _network(10)

    def loss(key, solution):
        index = jax.random.randint(key, (128,), 0, len(labels))
        logits = network.apply(solution, images[index])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels[index]))

    return network.init(jax.random.key(0), images[:1]), loss


def _network(num_outputs: int):
    import flax.linen as nn

    return nn.Sequential([nn.Dense(32), nn.tanh, nn.Dense(num_outputs)])


def main(rounds: int = 5) -> None:
    print("| strategy, task | zoo, CPU s | evosax, CPU s | ratio | ratio of wall | target | ratio, cached | target |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    module = ("-m", "benchmarks.speed.first_result")
    for task in TASKS:
        for strategy in STRATEGIES:
            with tempfile.TemporaryDirectory() as cache:
                time_process(*module, "zoo", strategy, task, cache=cache)
                seconds = np.array(
                    [
                        [
                            time_process(*module, "zoo", strategy, task),
                            time_process(*module, "evosax", strategy, task),
                            time_process(*module, "zoo", strategy, task, cache=cache),
                        ]
                        for _ in range(rounds)
                    ]
                )  # [round, side, (wall, CPU)]
            ours, theirs, _ = np.median(seconds[..., 1], axis=0)
            ratio, cached = (np.median(seconds[:, i] / seconds[:, 1], axis=0) for i in (0, 2))
            print(
                f"| {strategy}, {task} | {ours:.1f} | {theirs:.1f} | {ratio[1]:.2f} | {ratio[0]:.2f} | 0.75 "
                f"| {cached[1]:.2f} | 0.40 |",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) == 4:
        {"zoo": zoo_side, "evosax": evosax_side}[sys.argv[1]](*sys.argv[2:])
    else:
        main(*(int(x) for x in sys.argv[1:]))
