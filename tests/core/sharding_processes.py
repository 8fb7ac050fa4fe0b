"""Runs in two processes that share a mesh. Each process prints its results of the same runs as JSON.

Arguments: the number of processes, the number of this process, a free port, and a folder for this process.
"""

import json
import pathlib
import sys

import jax
import numpy as np

import zoo

RUNS = {
    "open_es": ("supervised/digits", {"hidden": (4,), "batch_size": 8}, {"perturbation": "low_rank"}),
    "pes": ("unrolled/lorenz", {"horizon": 20, "window": 5}, {"perturbation": "seeded"}),
    "cma_es": ("blackbox/sphere", {}, {}),
}


def make(id):
    problem_id, problem_settings, settings = RUNS[id]
    problem = zoo.make_problem(problem_id, **problem_settings)
    return zoo.make_strategy(id, problem=problem, population_size=16, **settings), problem


def facts(result):
    """Returns the results of a run as lists."""
    leaves = jax.tree.leaves((result.mean, result.best_solution))
    return {
        "mean": [float(x) for leaf in leaves for x in np.ravel(leaf)],
        "history": result.history["mean_fitness"].tolist(),
        "scores": result.scores[result.problem.headline].tolist(),
    }


@jax.enable_x64(True)
def run(id, mesh=None, **settings):
    """Runs a pair in double precision, because eigenvectors of an almost round C magnify rounding of sums."""
    return zoo.run(*make(id), num_generations=6, num_scores=3, mesh=mesh, **settings)


def benchmark(folder, mesh=None):
    strategy, problem = make("cma_es")
    return zoo.benchmark(strategy, problem, num_seeds=2, num_steps=96, num_scores=2, out=folder, mesh=mesh)


def main(num_processes, process, port, folder):
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"localhost:{port}", num_processes, process)
    mesh = zoo.population_mesh()
    found = {id: facts(run(id, mesh)) for id in RUNS}

    # The run is interrupted and resumed. Each process holds a part of the inner states.
    checkpoint = {"checkpoint": folder / "checkpoint"}
    run("pes", mesh, callback=lambda progress: progress.generation >= 2, **checkpoint)
    found["generations"] = []
    settings = {"progress": True, "callback": lambda progress: found["generations"].append(progress.generation)}
    found["resumed"] = facts(run("pes", mesh, **settings, **checkpoint))
    try:
        run("cma_es", mesh, **checkpoint)
    except ValueError as error:
        found["error"] = str(error)

    found["benchmark"] = benchmark(folder / "results", mesh).curves.value.tolist()
    found["seconds"] = benchmark(folder / "results", mesh).pairs[0].info["seconds"]  # loaded from the first process
    found["files"] = sorted(path.name for path in folder.iterdir())
    try:
        zoo.run("snes", "blackbox/sphere", num_generations=1, mesh=zoo.population_mesh(1))
    except ValueError as error:
        found["not of this process"] = str(error)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), pathlib.Path(sys.argv[4]))
