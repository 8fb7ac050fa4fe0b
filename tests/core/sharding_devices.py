"""Runs on 8 simulated devices, and prints the results as JSON for `test_sharding.py`."""

import functools
import itertools
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import zoo
from zoo.core.keys import is_key
from zoo.loop import compiled
from zoo.testing.examples import example_problems
from zoo.testing.loop import generation, start

FORMS = ("dense", "seeded", "low_rank")
MASKED = zoo.make_problem("supervised/digits", hidden=(4,), batch_size=8, density=0.5)
PAIRS = {
    **{f"open_es {form}": ("open_es", "function", {"perturbation": form}) for form in FORMS},
    "nres seeded": ("nres", "unrolled", {"perturbation": "seeded"}),
    "pes": ("pes", "unrolled", {}),
    "guided_es": ("guided_es", "function", {}),
    "snes": ("snes", "function", {}),
    "cma_es": ("cma_es", "function", {}),
    "lottery": ("lottery", "supervised", {"base": {"id": "snes", "population_size": 16}, "generations_per_round": 2}),
    "hybrid": ("hybrid", "masked", {"base": {"id": "open_es", "population_size": 16}}),
}
CHEAP = ("open_es dense", "cma_es")  # also compiled for two devices; `batches` and `runs` use four


@functools.cache
def make(name):
    """Returns the strategy and the problem of a pair. They are cached, so their programs are reused."""
    id, family, settings = PAIRS[name]
    problem = MASKED if family == "masked" else example_problems()[family]
    size = {} if "base" in settings else {"population_size": 16}
    return zoo.make_strategy(id, problem=problem, **size, **settings), problem


def distance(tree, other):
    """Returns the largest difference in any leaf of two pytrees, relative to the largest number in the leaf."""

    def of_leaves(one, two):
        one, two = (np.asarray(x, np.float64) for x in (one, two))
        return np.max(np.abs(one - two)) / max(np.max(np.abs(one)), 1e-30)

    tree, other = ([x for x in jax.tree.leaves(tree) if not is_key(x)] for tree in (tree, other))
    return float(max(map(of_leaves, tree, other)))


def on_devices(count, fn, *args):
    with jax.set_mesh(zoo.population_mesh(count)):
        return fn(*args)


@jax.jit
def three_generations(strategy, problem):
    """Returns the final state of the search and what it reported, after three generations."""
    key = jax.random.key(0)
    _, carry = compiled.start(strategy, problem, key, None, batched=False)
    keys = jax.vmap(compiled.generation_keys, in_axes=(None, 0))(key, jnp.arange(3))
    return jax.lax.scan(lambda carry, keys: compiled.generation(strategy, problem, carry, keys), carry, keys)


def same_results():
    """Returns, for each pair, the distance between the results on several devices and on one."""
    distances = {}
    for name in PAIRS:
        counts = (2, 8) if name in CHEAP else (8,)
        one, *several = (on_devices(count, three_generations, *make(name)) for count in (1, *counts))
        distances[name] = [distance(one, result) for result in several]
    return distances


# --- how the work is shared, and what is sent ---


def network(solution, inputs, labels):
    for layer in solution[:-1]:
        inputs = jnp.tanh(inputs @ layer["kernel"] + layer["bias"][None])
    logits = inputs @ solution[-1]["kernel"] + solution[-1]["bias"][None]
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))


def collectives(hlo):
    """Returns the kind and number of entries of each collective operation of a compiled program."""
    found = []
    for line in hlo.splitlines():
        match = re.search(
            r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?\(", line
        )
        if match:
            shapes = re.findall(r"\w+\[([\d,]*)\]", match[1])
            found.append([match[2], sum(int(np.prod([int(n) for n in s.split(",") if n])) for s in shapes)])
    return found


def largest_array(hlo):
    """Returns the number of entries of the largest floating-point array of a compiled program."""
    shapes = re.findall(r"\b[b]?f\d+\[([\d,]+)\]", hlo)
    return max(int(np.prod([int(n) for n in shape.split(",")])) for shape in shapes)


def compiled_generation():
    """Measures for each form how one generation of an MLP 64-256-256-10 (32 examples, 64 members) is shared."""
    sizes = (64, 256, 256, 10)
    key = jax.random.key(0)
    # Nothing is run, so the numbers do not matter.
    zeros = functools.partial(np.zeros, dtype=np.float32)
    layers = [{"kernel": zeros((n, m)), "bias": zeros(m)} for n, m in itertools.pairwise(sizes)]
    data = (zeros((32, 64)), np.zeros(32, np.int32))
    problem = zoo.from_function(network, layers, data=data)

    def compile(strategy):
        return jax.jit(compiled.generation).lower(strategy, problem, carry, jax.random.split(key)).compile()

    facts = {"num_parameters": sum(x.size for x in jax.tree.leaves(layers)), "population_size": 64}
    for form in FORMS:
        strategy = zoo.make_strategy("open_es", problem=problem, population_size=64, perturbation=form)
        _, carry = jax.eval_shape(lambda s: compiled.start(s, problem, key, None, batched=False), strategy)
        one, eight = (on_devices(count, compile, strategy) for count in (1, 8))
        facts[form] = {
            "flops": eight.cost_analysis()["flops"] / one.cost_analysis()["flops"],
            "temporary_bytes": [x.memory_analysis().temp_size_in_bytes for x in (one, eight)],
            "largest_array": [largest_array(x.as_text()) for x in (one, eight)],
            "collectives_of_one": collectives(one.as_text()),
            "collectives": collectives(eight.as_text()),
        }
    return facts


# --- ways to use it ---


def manual_loop():
    """Runs the loop of the README without a mesh, with one, and without again, with the same jitted function."""
    strategy, problem = make("open_es seeded")
    begin, one_generation = jax.jit(start), jax.jit(generation)

    def loop():
        state = begin(strategy, problem, jax.random.key(0))
        for key in jax.random.split(jax.random.key(1), 3):
            state, fitness = one_generation(strategy, problem, state, key)
        return strategy.mean(state.state), fitness

    alone, split, again = loop(), on_devices(8, loop), loop()
    return {
        "distance": distance(alone, split),
        "again": distance(alone, again),
        "num_devices": [len(jax.tree.leaves(x)[0].sharding.device_set) for x in (alone, split, again)],
    }


def runs():
    """Calls `zoo.run` without a mesh, with several meshes, and without again."""
    strategy, problem = make("open_es low_rank")

    def run(mesh=None, strategy=strategy, problem=problem, **settings):
        result = zoo.run(strategy, problem, num_generations=4, num_scores=2, mesh=mesh, **settings)
        return result.mean, result.best_solution, result.history["mean_fitness"], result.scores["fitness"]

    alone = run()
    mesh = jax.make_mesh((4, 2), ("population", "model"), axis_types=(AxisType.Explicit,) * 2)
    distances = {"two axes, explicit": distance(alone, run(mesh)), "again": distance(alone, run())}
    # Arrays on one device, or on another mesh, move to where they are needed.
    moved = jax.device_put(problem, jax.devices()[3])
    elsewhere = jax.device_put(problem.solution, NamedSharding(mesh, PartitionSpec()))
    distances["elsewhere"] = distance(alone, run(zoo.population_mesh(8), problem=moved, solution=elsewhere))
    return distances


def batches():
    """Evaluates members two at a time on each of four devices."""
    distances = {}
    for form in ("dense", "seeded"):
        strategy, problem = make(f"open_es {form}")
        one = on_devices(1, three_generations, strategy, problem)
        distances[form] = distance(
            one, on_devices(4, three_generations, strategy, problem.replace(member_batch_size=2))
        )
    return distances


def benchmark():
    """Calls `zoo.benchmark` with two seeds, with and without a mesh."""
    settings = {"num_seeds": 2, "num_steps": 64, "num_scores": 2, "progress": False}
    strategy, problem = make("cma_es")
    alone, split = (zoo.benchmark(strategy, problem, mesh=mesh, **settings) for mesh in (None, zoo.population_mesh(8)))
    return distance(alone.pairs[0].solution, split.pairs[0].solution)


def error_of(fn, *args, **kwargs):
    try:
        fn(*args, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def errors():
    """Returns the errors for invalid input."""
    mesh = zoo.population_mesh(8)
    problem = example_problems()["function"]
    data = jax.device_put(jnp.ones((4, 3)), NamedSharding(mesh, PartitionSpec()))

    def closing_over_data():
        return zoo.map_members(lambda x: jnp.sum(x * data[0]), jnp.ones((8, 3)))

    def run(mesh=mesh, id="open_es", **settings):
        strategy = zoo.make_strategy(id, problem=problem, **settings)
        return zoo.run(strategy, problem, num_generations=1, mesh=mesh)

    return {
        "does not divide": error_of(run, population_size=20),
        **{f"pairs, {form}": error_of(run, population_size=8, perturbation=form) for form in ("seeded", "low_rank")},
        "cma_es": error_of(run, id="cma_es", population_size=9),
        "axis": error_of(run, mesh=jax.make_mesh((8,), ("x",))),
        "no mesh": error_of(run, mesh=8),
        "too many": error_of(zoo.population_mesh, 9),
        "closure": error_of(on_devices, 8, closing_over_data),
        "ray": error_of(zoo.benchmark, "snes", "blackbox/sphere", executor="ray", mesh=mesh),
    }


if __name__ == "__main__":
    parts = [same_results, compiled_generation, manual_loop, runs, batches, benchmark, errors]
    wanted = sys.argv[1:] or [part.__name__ for part in parts]
    print(json.dumps({part.__name__: part() for part in parts if part.__name__ in wanted}))
