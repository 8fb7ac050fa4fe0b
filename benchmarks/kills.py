"""Kills runs, benchmarks and ladders at random moments, and compares their results with undisturbed ones.

A process works on a folder, is killed (signal 9) at a moment drawn with a seed, and is started again. This repeats
several times, and then the process may finish. All resulting numbers must be the same, bit for bit, and no file may
count as damaged.

Run: python -m benchmarks.kills [number of kills per kind]
"""

import hashlib
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np

import zoo
from zoo.core.keys import is_key

KILLS_PER_FOLDER = 5


def run(folder: pathlib.Path) -> Any:
    """Does a run with 200 checkpoints."""
    result = zoo.run("cma_es", "blackbox/sphere", 3, num_generations=600, num_scores=200, checkpoint=folder)
    result.save(folder / "result")
    curves = {name: x for name, x in result.scores.items() if name != "seconds"}
    return result.state, result.best_solution, result.history, curves


def benchmark(folder: pathlib.Path) -> Any:
    """Does a benchmark of twelve short pairs."""
    settings = {"num_seeds": 3, "num_steps": 400, "num_scores": 4, "out": folder, "progress": False}
    spheres = {f"p{number}": zoo.make_problem("blackbox/sphere", num_dims=3 + number) for number in range(4)}
    zoo.benchmark(["snes", "random_search", "open_es"], spheres, **settings)
    results = zoo.Results.load(folder)
    curves = results.curves.drop(columns="seconds").to_csv(index=False)
    return curves, [pair.solution for pair in results.pairs], results.runtimes.to_csv(index=False)


def ladder(folder: pathlib.Path) -> Any:
    """Finds tickets by two criteria, in 40 rounds each."""
    problem = zoo.make_problem("supervised/digits", hidden=(4,), batch_size=16)
    strategy = {"id": "snes", "population_size": 6}
    settings = {"criteria": ("snr", "random"), "num_seeds": 2, "num_rounds": 40, "generations_per_round": 2}
    zoo.lottery_tickets(strategy, problem, out=folder, progress=False, **settings)
    tickets = zoo.load_tickets(folder, problem)
    return tickets.rounds, tickets.solutions, tickets.frame.to_csv(index=False)


KINDS = {"run": run, "benchmark": benchmark, "ladder": ladder}


def digest(tree: Any) -> str:
    """Returns a hash of all numbers and texts in a pytree."""
    hashed = hashlib.sha256()
    for x in jax.tree.leaves(tree):
        array = np.asarray(jax.random.key_data(x) if is_key(x) else x)
        hashed.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return hashed.hexdigest()


def work(kind: str, folder: str, cache: str) -> None:
    """Works on a folder. Runs in its own process."""
    zoo.use_compilation_cache(cache)
    print("ready", flush=True)
    print(digest(KINDS[kind](pathlib.Path(folder))), flush=True)


def start(kind: str, folder: pathlib.Path, cache: pathlib.Path) -> subprocess.Popen[str]:
    """Starts a process and waits until it begins to work."""
    command = [sys.executable, "-m", "benchmarks.kills", kind, str(folder), str(cache)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Returns the digest that a process printed, and its warnings."""
    out, err = process.communicate()
    if process.returncode:
        raise RuntimeError(err)
    return out.strip(), err


def torture(kind: str, num_kills: int, place: pathlib.Path) -> str:
    """Kills processes of one kind, and returns a row of the table."""
    rng = np.random.default_rng(sorted(KINDS).index(kind))
    cache = place / "cache"
    finish(start(kind, place / f"{kind}-compiled", cache))
    clock = time.monotonic()
    expected, _ = finish(start(kind, place / f"{kind}-alone", cache))
    seconds = time.monotonic() - clock
    kills = folders = same = warned = 0
    while kills < num_kills:
        folders += 1
        folder = place / f"{kind}-{folders}"
        for _ in range(KILLS_PER_FOLDER):
            process = start(kind, folder, cache)
            time.sleep(rng.uniform(0, 0.5 * seconds))
            process.kill()
            process.communicate()
            kills += process.returncode == -9
        ending, warnings = finish(start(kind, folder, cache))
        same += ending == expected
        warned += "damaged" in warnings
    return f"| {kind} | {seconds:.1f} | {kills} | {folders} | {same} | {warned} |"


def main() -> None:
    """Prints the table."""
    if len(sys.argv) == 4:
        work(*sys.argv[1:])
        return
    num_kills = int(sys.argv[1]) if len(sys.argv) == 2 else 35
    print("| what | s, alone | kills | folders | that end bit-identical | that warned of damage |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as place:
        for kind in KINDS:
            print(torture(kind, num_kills, pathlib.Path(place)), flush=True)


if __name__ == "__main__":
    main()
