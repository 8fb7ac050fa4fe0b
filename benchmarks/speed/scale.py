"""Compares populations that are not stored with batched inference, stacked populations, evosax, and noise alone.

1. An MLP 64-256-256-256-10 (150 794 parameters) with 512 members x 32 samples. Compares a generation with low-rank
   perturbations with pure batched inference (one set of parameters, 512 x 32 samples), with a generation of stacked
   members, and with evosax 0.3.2's Open_ES on the same model. On a GPU also uses width 4096 in bfloat16.
2. Ten million parameters, population 256, seeded. Measures peak resident memory, and compares the time with drawing the
   noise twice plus the evaluation. Runs in its own process, so that the peak is its own.
3. Eight devices. Measures the floating-point work per device of the compiled program. Runs in its own process, which
   simulates the devices.

Run: python -m benchmarks.speed.scale
"""

import argparse
import functools
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax

import zoo
from benchmarks.timing import time_paired
from zoo.core.noise import normal_rows
from zoo.core.solution import num_dims
from zoo.core.strategy import Strategy
from zoo.problems.networks import MLP
from zoo.strategies.gradient.eggroll import EGGROLL
from zoo.strategies.gradient.open_es import OpenES
from zoo.strategies.perturbations import LowRank, Seeded, seeded


def cross_entropy(model: nn.Module, params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
    logits: Any = model.apply(params, inputs)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels))


def one_generation(strategy: Strategy, model: nn.Module) -> Any:
    @jax.jit
    def generation(key, state, inputs, labels):
        population, state = strategy.ask(key, state)
        fitness = zoo.map_members(lambda x: cross_entropy(model, x, inputs, labels), population)
        return strategy.tell(state, population, fitness)

    return generation


def batched_inference(model: nn.Module, population_size: int) -> Callable[..., Any]:
    """Returns pure inference of one set of parameters, on the number of samples that the population evaluates."""

    @jax.jit
    def infer(params, inputs, labels):
        def of_member(inputs):
            return cross_entropy(model, params, inputs, labels)

        return jax.vmap(of_member)(inputs.reshape(population_size, -1, inputs.shape[-1]))

    return infer


def evosax_generation(model: nn.Module, params: Any, population_size: int) -> tuple[Callable[..., Any], Any]:
    import evosax.algorithms

    algorithm = evosax.algorithms.Open_ES(population_size=population_size, solution=params, optimizer=optax.adam(0.01))
    settings = algorithm.default_params

    @jax.jit
    def generation(key, state, inputs, labels):
        key_ask, key_tell = jax.random.split(key)
        population, state = algorithm.ask(key_ask, state, settings)
        fitness = jax.vmap(lambda x: cross_entropy(model, x, inputs, labels))(population)
        return algorithm.tell(key_tell, population, fitness, state, settings)[0]

    return generation, algorithm.init(jax.random.key(0), params, settings)


def compare_mlp(width: int, population_size: int, batch: int, dtype: Any, *, peers: bool) -> None:
    model = MLP((width, width, width, 10))
    keys = jax.random.split(jax.random.key(0), 4)
    inputs = jax.random.normal(keys[0], (batch, 64), dtype)
    many = jax.random.normal(keys[1], (population_size * batch, 64), dtype)
    labels = jax.random.randint(keys[2], (batch,), 0, 10)
    params = model.init(keys[3], inputs.astype(jnp.float32))
    cast = jax.tree.map(lambda x: x.astype(dtype), params)
    infer = batched_inference(model, population_size)
    inference = functools.partial(infer, cast, many, labels)

    def ours(strategy: Strategy) -> Any:
        state = strategy.init(keys[0], params)
        return functools.partial(one_generation(strategy, model), keys[1], state, inputs, labels)

    form = LowRank(dtype=None if dtype == jnp.float32 else dtype)
    low_rank = ours(EGGROLL(population_size=population_size, perturbation=form))
    rows = [("batched inference", inference, low_rank, "at most 1.15 (GPU: 1.25)")]
    if peers:
        rows.append(("stacked members", ours(OpenES(population_size=population_size)), low_rank, "at most 0.10"))
        generation, state = evosax_generation(model, params, population_size)
        theirs = functools.partial(generation, keys[1], state, inputs, labels)
        rows.append(("evosax Open_ES", theirs, low_rank, "at most 0.10"))
    print(f"width {width}, {num_dims(params):,} parameters, {population_size} x {batch}, {jnp.dtype(dtype).name}")
    print("| beside | its ms | low-rank generation, ms | ratio (quartiles) | target |")
    print("| --- | --- | --- | --- | --- |")
    for name, other, generation, target in rows:
        t = time_paired(generation, other, settle=1, rounds=45 if name == "batched inference" else 9)
        print(
            f"| {name} | {1e3 * t.second:.1f} | {1e3 * t.first:.1f} | {t.ratio:.3f} ({t.low:.3f} to {t.high:.3f}) "
            f"| {target} |",
            flush=True,
        )


def ten_million() -> None:
    """Prints memory and time for seeded members with ten million parameters."""
    population_size, batch = 256, 32
    model = MLP((2200, 2200, 2200, 10))
    inputs = jax.random.normal(jax.random.key(0), (batch, 64))
    labels = jnp.arange(batch) % 10
    params = model.init(jax.random.key(1), inputs)
    strategy = OpenES(population_size=population_size, perturbation=Seeded())
    generation = one_generation(strategy, model)
    state = strategy.init(jax.random.key(2), params)
    # The parts alone: the noise is drawn row by row into one sum, and the same number of members is evaluated one by
    # one.
    num_rows = population_size // 2

    @jax.jit
    def noise(key):
        def add(i, total):
            z = normal_rows(key, params, jnp.asarray(i, jnp.uint32)[None])
            return jax.tree.map(lambda t, z: t + z[0], total, z)

        return jax.lax.fori_loop(0, num_rows, add, jax.tree.map(jnp.zeros_like, params))

    @jax.jit
    def evaluation(params, inputs, labels):
        def one(i, total):  # parameters differ, because the compiler would evaluate equal ones once
            moved = jax.tree.map(lambda x: x + i * 1e-9, params)
            return total + cross_entropy(model, moved, inputs, labels)

        return jax.lax.fori_loop(0, population_size, one, 0.0)

    programs = {
        "generation": functools.partial(generation, jax.random.key(3), state, inputs, labels),
        "noise, once": functools.partial(noise, jax.random.key(3)),
        "evaluation": functools.partial(evaluation, params, inputs, labels),
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    jax.block_until_ready(programs["generation"]())  # compiles, and the peak is read before the others run
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for program in programs.values():
        jax.block_until_ready(program())
    for _ in range(3):
        for name, program in programs.items():
            clock = time.perf_counter()
            jax.block_until_ready(program())
            seconds[name].append(time.perf_counter() - clock)
    total, noise_once, alone = (float(np.median(seconds[name])) for name in programs)
    size = num_dims(params)
    print(f"{size:,} parameters, population {population_size} x {batch} samples, seeded")
    print("| figure | value | target |")
    print("| --- | --- | --- |")
    stacked = 4 * size * population_size / 2**30
    print(f"| peak resident memory, GiB | {peak:.2f} ({before:.2f} before) | 2 (stacked: {stacked:.1f}) |")
    print(f"| generation, s | {total:.2f} | |")
    print(f"| noise drawn once, s | {noise_once:.2f} | |")
    print(f"| evaluation alone, s | {alone:.2f} | |")
    print(f"| generation / (noise twice + evaluation) | {total / (2 * noise_once + alone):.2f} | 1.3 |", flush=True)


def work_per_device() -> None:
    """Prints the floating-point work per device of the compiled program, relative to one device."""
    seeded._MANY_NUMBERS = 2**40  # avoids loops, because the analysis counts the body of a loop once
    model = MLP((256, 256, 256, 10))
    inputs, labels = jnp.ones((32, 64)), jnp.zeros(32, jnp.int32)
    params = model.init(jax.random.key(0), inputs)
    print("| perturbation | devices | work per device | largest difference of the means |")
    print("| --- | --- | --- | --- |")
    for form in ("low_rank", "seeded", "dense"):
        strategy = OpenES(population_size=512, perturbation=form)
        first = None
        for num_devices in (1, 2, 4, 8):
            with jax.set_mesh(zoo.population_mesh(num_devices)):
                state = strategy.init(jax.random.key(1), params)
                compiled = one_generation(strategy, model).lower(jax.random.key(2), state, inputs, labels).compile()
                work: Any = compiled.cost_analysis()
                mean = compiled(jax.random.key(2), state, inputs, labels).mean
            result = work["flops"], np.asarray(jax.flatten_util.ravel_pytree(jax.device_get(mean))[0])
            first = first or result
            difference = np.abs(result[1] - first[1]).max()
            print(f"| {form} | {num_devices} | {result[0] / first[0]:.4f} | {difference:.1e} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["mlp", "ten_million", "work_per_device"])
    part = parser.parse_args().part if __name__ == "__main__" else None
    if part == "ten_million":
        return ten_million()
    if part == "work_per_device":
        return work_per_device()
    if part is None:  # these run first, because a process inherits the peak of its parent
        for name, flags in (("ten_million", ""), ("work_per_device", "--xla_force_host_platform_device_count=8")):
            environment = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
            if flags:
                environment["JAX_PLATFORMS"] = "cpu"
            command = [sys.executable, "-m", "benchmarks.speed.scale", "--part", name]
            subprocess.run(command, check=True, env=environment)
            print(flush=True)
    device = jax.devices()[0]
    print(f"device: {device.device_kind}; jax {jax.__version__}")
    compare_mlp(256, 512, 32, jnp.float32, peers=True)
    if device.platform == "gpu":
        compare_mlp(4096, 512, 32, jnp.bfloat16, peers=False)
    return None


if __name__ == "__main__":
    main()
