"""Computes the reference table, task by task: all strategies with their defaults, and all of them tuned.

Every strategy gets the same number of settings (`plan.NUM_SETTINGS`, one of them its default) and of tuning seeds. The
scores are those of other seeds. What is finished is not computed again, so that the script may be interrupted.

Run: python -m benchmarks.reference.run [--task digits] [--folder results/reference] [--processes 2]
Then: python -m benchmarks.reference.publish
"""

import argparse
import pathlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import zoo
from benchmarks.reference.plan import NUM_SEEDS, NUM_SETTINGS, NUM_TUNING_SEEDS, ON_THE_HOST, TASKS

FOLDER = pathlib.Path("results/reference")


def compute(label: str, folder: pathlib.Path, *, with_host: bool) -> None:
    """Computes a task, or what is missing of it, with or without the strategies that run on the host."""
    task, clock = TASKS[label], time.perf_counter()
    strategies = {name: each for name, each in task.strategies.items() if with_host or name not in ON_THE_HOST}
    for kind, tune in (("default", None), ("tuned", NUM_SETTINGS)):
        results = zoo.benchmark(
            strategies,
            {label: task.problem},
            num_seeds=NUM_SEEDS,
            num_steps=task.num_steps,
            tune=tune,
            tune_seeds=NUM_TUNING_SEEDS,
            out=folder_of(folder, label, kind),
            accept_versions=True,
            progress=False,
        )
        minutes = (time.perf_counter() - clock) / 60
        print(f"{label}, {kind}: {minutes:.1f} min, failed: {results.failures.strategy.tolist()}", flush=True)


def folder_of(folder: pathlib.Path, label: str, kind: str) -> pathlib.Path:
    """Returns the folder of a task's results with defaults (`"default"`), or with tuned settings (`"tuned"`)."""
    return folder / kind / label.replace(" ", "-").replace(",", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=[*TASKS], action="append", help="a task to compute; all of them if left out")
    parser.add_argument("--folder", type=pathlib.Path, default=FOLDER)
    parser.add_argument("--processes", type=int, default=1, help="tasks that are computed beside each other")
    arguments = parser.parse_args()
    tasks = arguments.task or list(TASKS)
    zoo.use_compilation_cache()
    if len(tasks) == 1:
        for with_host in (False, True):
            compute(tasks[0], arguments.folder, with_host=with_host)
        return
    # A process for each task, because a process keeps the memory of every program that it has compiled.
    command = [sys.executable, "-m", "benchmarks.reference.run", "--folder", str(arguments.folder), "--task"]
    with ThreadPoolExecutor(arguments.processes) as pool:
        for done in pool.map(lambda task: subprocess.run([*command, task], check=False), tasks):
            if done.returncode:
                print(f"failed: {' '.join(done.args)}", flush=True)


if __name__ == "__main__":
    main()
