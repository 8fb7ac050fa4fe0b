"""Bad command lines and damaged folders: each gets one clear line, and never a traceback."""

import os
import pathlib
import subprocess
import sys

import pytest

import zoo
from tests import fuzz_cli
from tests.benchmarking.test_results import make_pair, make_results

RUN = ["run", "random_search", "blackbox/sphere", "--generations", "1"]
BENCHMARK = ["benchmark", "-s", "snes", "-p", "blackbox/sphere", "--steps", "8"]
HUGE = "9223372036854775808"
DIGITS = "1" * 400


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("file").write_text("mine")
    yield tmp_path
    assert pathlib.Path("file").read_text() == "mine"


@pytest.mark.parametrize("command", fuzz_cli.COMMANDS)
def test_bad_command_lines(command):
    seen = []
    fuzz_cli.fuzz(command, 25, seen.append)
    assert len(seen) >= 25


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([*RUN, "--key", HUGE], "--key"),
        ([*BENCHMARK, "--key", "-" + HUGE], "--key"),
        ([*RUN[:3], "--steps", DIGITS], "--steps"),
        ([*RUN[:4], DIGITS], "--generations"),
        ([*BENCHMARK, "--steps", DIGITS], "--steps"),
        ([*BENCHMARK, "--steps", "1e300"], "--steps"),
        ([*BENCHMARK, "--seeds", "100000000000"], "--seeds"),
        ([*RUN, "--devices", DIGITS], "--devices"),
        ([*RUN, "--set", "population_size=10000000000000"], "population_size must be at most 2147483647"),
        ([*RUN, "--set", "population_size=2000000000", "--set-problem", "num_dims=100000"], "=2,000,000,000 takes"),
        ([*RUN, "--set", f"population_size={DIGITS}"], "population_size"),
        ([*RUN, "--set-problem", "num_dims=10000000000000"], "num_dims must be at most 2147483647"),
        ([*RUN, "--set", "sigma=" + "[" * 100_000], "sigma"),
        ([*RUN, "--set", "sigma=" + "-" * 5000 + "1"], "sigma"),
        ([*RUN, "--set", "sigma={[]: 1}"], "sigma"),
        ([*RUN, "--set", "problem=3"], "problem=3"),
        ([*RUN, "--out", "file/x"], "file"),
        ([*RUN, "--out", "/proc/x"], "/proc/x"),
        ([*RUN, "--out", "a" * 300], "a" * 300),
        (["report", "file"], "file"),
        (["run", "--resume", "file"], "file"),
    ],
)
def test_what_is_wrong_is_named(args, named):
    assert fuzz_cli.check([*args, "--no-cache"] if args[0] != "report" else args, named) == 2


def test_damaged_folders(tmp_path):
    make_results(make_pair("a", "p", [[2.0], [1.0]])).save(tmp_path / "benchmark")
    (tmp_path / "report").mkdir()
    codes = fuzz_cli.fuzz_folders(tmp_path / "benchmark", tmp_path / "report", lambda thing: ["report", str(thing)])
    assert 2 in codes

    problem = zoo.make_problem("blackbox/sphere", num_dims=2)
    search = zoo.make_strategy("random_search", problem=problem, population_size=4)
    zoo.run(search, problem, num_generations=1).save(tmp_path / "run")
    (tmp_path / "resume").mkdir()
    resume = ["run", "--no-cache", "--resume"]
    codes = fuzz_cli.fuzz_folders(tmp_path / "run", tmp_path / "resume", lambda thing: [*resume, str(thing)])
    assert 2 in codes


def test_mistakes_of_the_zoo_are_one_line_too(monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("a\nb")

    monkeypatch.setattr(zoo, "run", broken)
    code, _, err = fuzz_cli.call([*RUN, "--no-cache"])
    assert (code, err) == (1, "error: RuntimeError: a b. ZOO_TRACEBACK=1 shows where.\n")
    monkeypatch.setenv("ZOO_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="a\nb"):
        fuzz_cli.call([*RUN, "--no-cache"])


def test_output_that_nobody_reads_or_that_cannot_be_written():
    """Runs in separate processes, since Python would complain at their exit."""
    command = [sys.executable, "-m", "zoo", "--version"]
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full", "wb") if os.path.exists("/dev/full") else os.fdopen(os.dup(writer), "wb") as full:
        started = [subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True) for out in (writer, full)]
    os.close(writer)
    started.append(subprocess.Popen(["sh", "-c", '"$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert errors[0] == errors[2] == ""
    assert errors[1].startswith("error: [Errno 28]")
    assert len(errors[1].splitlines()) == 1
    assert [process.returncode for process in started] == [1, 2, 0]
