"""Populations split over devices give the same results, share the work, and send little between devices.

JAX fixes the number of simulated devices when it starts, so separate scripts run on several devices:
`sharding_devices.py` on 8 devices of one process, `sharding_processes.py` on 2 devices of each of two processes.
"""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import zoo
from tests.core.sharding_processes import RUNS, benchmark, facts, run
from zoo.cli import app

ROOT = pathlib.Path(__file__).parents[2]
FORMS = ("dense", "seeded", "low_rank")


def start(script, *args, num_devices):
    """Starts a script on simulated devices."""
    command = [sys.executable, "-m", f"tests.core.{script}", *map(str, args)]
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={num_devices}"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait(process):
    """Returns the output of a script, and the parsed JSON of its last line."""
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, out + err
    *lines, last = out.splitlines()
    return "".join(lines), json.loads(last)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Makes a folder for each of two processes."""
    return [tmp_path_factory.mktemp(f"process{i}") for i in range(2)]


@pytest.fixture(scope="module")
def scripts(folders):
    """Starts all scripts at once, because each takes long."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = [
        start("sharding_devices", num_devices=8),
        *(start("sharding_processes", 2, i, port, folders[i], num_devices=2) for i in range(2)),
    ]
    yield started
    for process in started:
        process.kill()
        process.communicate()


# --- 8 devices of one process ---


@pytest.fixture(scope="module")
def on_devices(scripts):
    """Returns what the script found on 8 devices."""
    return wait(scripts[0])[1]


def test_any_number_of_devices_gives_the_same_results(on_devices):
    far = {name: d for name, d in on_devices["same_results"].items() if not max(d) < 3e-5}  # in 32 bits
    assert len(on_devices["same_results"]) >= 10
    assert not far


@pytest.mark.parametrize(("form", "most"), [("seeded", 0.14), ("low_rank", 0.14), ("dense", 0.25)])
def test_each_of_8_devices_does_an_eighth_of_the_work(on_devices, form, most):
    # Dense noise: antithetic partners are on different devices, and each device draws the noise they share.
    facts = on_devices["compiled_generation"][form]
    assert facts["flops"] <= most
    one, eight = facts["largest_array"]
    assert eight <= one / 8  # no array holds all members
    one, eight = facts["temporary_bytes"]
    assert eight <= one / 4


@pytest.mark.parametrize("form", FORMS)
def test_fitness_and_the_update_are_all_that_is_sent(on_devices, form):
    facts = on_devices["compiled_generation"]
    size, population_size = facts["num_parameters"], facts["population_size"]
    assert facts[form]["collectives_of_one"] == []
    large = [(kind, n) for kind, n in facts[form]["collectives"] if n > population_size]
    assert [kind for kind, _ in large] == ["all-reduce"]  # exactly one
    ((_, entries),) = large
    # The update, and the best member as it is stored: the member itself, factors, or a key.
    assert size <= entries <= {"dense": 2 * size, "seeded": size + 8, "low_rank": 1.05 * size}[form]
    assert len(facts[form]["collectives"]) <= 14


def test_a_loop_of_ones_own_is_split_where_a_mesh_is_set(on_devices):
    found = on_devices["manual_loop"]
    assert found["distance"] < 1e-5
    assert found["again"] == 0  # without a mesh again, the program from before is used
    assert found["num_devices"] == [1, 8, 1]


def test_run_takes_any_mesh_with_the_axis_and_what_lies_on_other_devices(on_devices):
    assert on_devices["runs"]["again"] == 0
    assert max(on_devices["runs"].values()) < 1e-5


def test_members_are_evaluated_in_batches_on_each_device(on_devices):
    assert max(on_devices["batches"].values()) < 1e-5


def test_benchmark_splits_the_populations_of_all_seeds(on_devices):
    assert on_devices["benchmark"] < 3e-5


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("does not divide", "ValueError.* of 20 cannot be divided among 8 devices. Use a multiple of 8"),
        ("cma_es", "ValueError.* population of 9 cannot be divided among 8 devices"),
        ("pairs, seeded", "ValueError.* of 4 cannot be divided among 8 devices.*of 16 where antithetic"),
        ("pairs, low_rank", "ValueError.* of 4 cannot be divided among 8 devices.*of 16 where antithetic"),
        ("axis", r"TypeError: mesh must have an axis 'population'.*got axes \('x',\)"),
        ("no mesh", "TypeError: mesh must be a jax.sharding.Mesh, such as zoo.population_mesh.*got 8"),
        ("too many", "ValueError: population_mesh got 9 devices to use, but there are 8"),
        ("closure", "ValueError: A function of members closes over an array that was put on a mesh"),
        ("ray", "ValueError: .*executor='local' with a mesh"),
    ],
)
def test_what_will_not_do_is_named(on_devices, case, said):
    assert re.match(said, on_devices["errors"][case]), on_devices["errors"][case]


# --- two processes ---


@pytest.fixture(scope="module")
def on_processes(scripts):
    """Returns what each of two processes printed and found."""
    return [wait(process) for process in scripts[1:]]


@pytest.fixture(scope="module")
def alone():
    """Returns the same runs on one device of this process."""
    return {id: facts(run(id)) for id in RUNS}


@pytest.mark.parametrize("id", RUNS)
def test_two_processes_find_what_one_does(on_processes, alone, id):
    (_, first), (_, second) = on_processes
    assert first[id] == second[id]
    for name, values in alone[id].items():
        np.testing.assert_allclose(first[id][name], values, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_first_process_alone_writes_and_shows_progress(on_processes, folders):
    (said, first), (nothing_said, second) = on_processes
    assert first["files"] == ["checkpoint", "results"]
    assert second["files"] == []
    assert "100%" in said
    assert "100%" not in nothing_said
    assert not list(folders[0].rglob("*.tmp"))


def test_processes_resume_from_the_checkpoint_of_the_first(on_processes, folders):
    (_, first), (_, second) = on_processes
    assert first["resumed"] == second["resumed"] == first["pes"]  # bit for bit
    assert first["generations"] == [4, 6]  # it continued after generation 2
    assert "another run" in first["error"]
    assert second["error"] == first["error"]
    resumed = run("pes", checkpoint=folders[0] / "checkpoint")  # one process without a mesh resumes as well
    assert facts(resumed) == first["resumed"]


def test_processes_share_a_benchmark(on_processes, folders):
    (_, first), (_, second) = on_processes
    assert first["benchmark"] == second["benchmark"]
    assert first["seconds"] == second["seconds"]
    results = benchmark(folders[0] / "results")  # loaded, because it is the same pair in one process
    assert results.pairs[0].info["seconds"] == first["seconds"]
    assert results.curves.value.tolist() == first["benchmark"]


def test_a_mesh_must_not_leave_a_process_out(on_processes):
    (_, first), (_, second) = on_processes
    assert "not of this process" not in first
    assert "devices of processes [0], but this is process 1 of 2" in second["not of this process"]


# --- one device ---


def test_a_mesh_of_one_device_changes_nothing():
    mesh = zoo.population_mesh(1)
    results = [zoo.minimize(lambda x: (x**2).sum(), np.ones(3), num_generations=3, mesh=m) for m in (None, mesh)]
    np.testing.assert_array_equal(*(result.mean for result in results))
    assert results[1].mean.sharding.is_equivalent_to(jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()), 1)


def test_devices_of_the_command_line():
    arguments = ["run", "snes", "blackbox/sphere", "--generations", "2", "--devices"]
    assert "stopped by budget" in CliRunner().invoke(app, [*arguments, "1"]).output
    refused = CliRunner().invoke(app, [*arguments, "99"])
    assert refused.exit_code == 2
    assert "99 devices" in refused.output
