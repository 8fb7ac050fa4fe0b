"""Random bad command lines: `python -m tests.fuzz_cli` runs them and prints a count of each exit code.

Every option of every command gets values of its kind, extreme values, values of other kinds, and damaged folders. The
optimisation loop is left out (`without_runs`): it takes long, and it does not depend on the command line.
"""

import collections
import contextlib
import io
import pathlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import hypothesis
import hypothesis.strategies as st
import typer

import zoo.cli
from tests.faults import Sandbox, damages, files_of

MAX_LINES = 3  # lines of an error
MAX_CHARACTERS = 1300  # characters of a line of an error

_digits = st.integers(1, 400).map(lambda count: "9" * count)
_numbers = st.one_of(
    st.integers(-3, 3).map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(str),
    _digits,
    st.sampled_from(
        ["", "x", "1e5", "1e999", "-0.0", "1_0", "0x10", "1.5", "9223372036854775808", "nan", "None", "1j"]
    ),
)
_nested = st.integers(1, 5000).map(lambda depth: "[" * depth) | st.integers(1, 150).map(lambda n: "(" * n + ")" * n)
_texts = st.text(st.characters(blacklist_characters="\0"), max_size=20)
_literals = st.sampled_from(["{1: []}", "{[]: 1}", "True", "none", "'a'", "'\\d'", "()"])
_values = st.one_of(_numbers, _texts, _nested, _literals)
_names = st.sampled_from(
    ["sigma", "population_size", "learning_rate", "optimizer", "base", "id", "self", "problem", ""]
)
_settings = st.one_of(st.builds("{}={}".format, _names, _values), _values)
_labelled = st.builds("{}:{}".format, st.sampled_from(["snes", "blackbox/sphere", "x", ""]), _settings) | _settings
_strategies = st.sampled_from(["snes", "open_es", "random_search", "bipop", "snez", "evosax/", "evosax/*", ""]) | _texts
_problems = (
    st.sampled_from(["blackbox/sphere", "blackbox/f0", "blackbox/*", "rl/gymnasium/x", "supervised/mnist", ""]) | _texts
)
_folders = (
    st.sampled_from(["", ".", "file", "file/x", "new", "a" * 300, "/dev/null", "/proc/x", "../x", "\udc80"]) | _texts
)


def _option(name: str, values: Any) -> Any:
    return st.lists(st.tuples(st.just(name), values), max_size=2).map(lambda pairs: [x for pair in pairs for x in pair])


def _flag(*names: str) -> Any:
    return st.lists(st.sampled_from(names), max_size=1)


def _command(*parts: Any) -> Any:
    return st.tuples(*parts).map(lambda lists: [x for each in lists for x in each])


_spaces = st.builds(
    "sigma={}({})".format, st.sampled_from(["uniform", "log_uniform", "times", "integers", "choice"]), _texts
) | (
    st.sampled_from(["sigma=log_uniform(0.1, 1)", "sigma=0.1,0.2", "population_size=integers(2, 8, step=2)", "sigma=,"])
)
_NUMBERS = ("key", "steps", "generations", "seeds", "devices", "rounds")
_numbers_of = {name: _option(f"--{name}", _numbers) for name in _NUMBERS}
_common = (_numbers_of["key"], _flag("--no-cache"), _flag("--accept-versions"), _flag("-h", "--help", "--nope"))
COMMANDS = {
    "list": _command(st.just(["list"]), st.lists(_texts, max_size=1)),
    "describe": _command(st.just(["describe"]), st.lists(_strategies | _problems | _texts, max_size=2)),
    "run": _command(
        st.just(["run"]),
        st.lists(_strategies, max_size=1),
        st.lists(_problems, max_size=1),
        *_common,
        *(_numbers_of[name] for name in ("steps", "generations", "devices")),
        _option("--target", _numbers),
        _option("--set", _settings),
        _option("--set-problem", _settings),
        _option("--out", _folders),
        _option("--resume", _folders),
        _option("--log", _folders),
        _option("--tensorboard", _folders),
    ),
    "benchmark": _command(
        st.just(["benchmark"]),
        _option("-s", _strategies),
        _option("-p", _problems),
        *_common,
        *(_numbers_of[name] for name in ("seeds", "devices")),
        *(_option(name, _numbers) for name in ("--tune", "--tune-seeds")),
        _option("--steps", _numbers | st.builds("{}={}".format, _problems, _numbers)),
        _option("--set", _labelled),
        _option("--set-problem", _labelled),
        _option("--out", _folders),
        _option("--executor", st.sampled_from(["local", "", "x"])),
        _flag("--fresh"),
    ),
    "sweep": _command(
        st.just(["sweep"]),
        st.lists(_strategies, max_size=1),
        st.lists(_problems, max_size=1),
        *_common,
        *(_numbers_of[name] for name in ("steps", "generations", "seeds")),
        *(_option(name, _numbers) for name in ("--settings", "--test-seeds", "--halving")),
        _option("--space", _settings | _spaces),
        _option("--sampler", st.sampled_from(["random", "grid", "", "x"])),
        _option("--set", _settings),
        _option("--set-problem", _settings),
        _option("--out", _folders),
        _flag("--fresh"),
    ),
    "report": _command(
        st.just(["report"]),
        st.lists(_folders | st.sampled_from(["x.html", "file/x.html"]), max_size=3),
        _flag("--html", "--html=x"),
    ),
    "compare": _command(
        st.just(["compare"]),
        st.lists(_folders, max_size=2),
        _option("--baseline", _strategies),
        _option("--correction", st.sampled_from(["holm", "fdr", "none", "", "x"])),
        _option("--test", st.sampled_from(["wilcoxon", "permutation", "", "x"])),
        _option("-p", _problems),
    ),
    "tickets": _command(
        st.just(["tickets"]),
        st.lists(_strategies, max_size=1),
        st.lists(st.just("supervised/digits") | _problems, max_size=1),
        *_common,
        *(_numbers_of[name] for name in ("rounds", "generations", "seeds")),
        *(_option(name, _numbers) for name in ("--prune", "--weight-decay")),
        _option("-c", st.sampled_from(["snr", "magnitude", "", "x"])),
        _option("--exclude", _texts | st.sampled_from(["(", ".*"])),
        _option("--set", _settings),
        _option("--set-problem", _settings),
        _option("--out", _folders),
    ),
}
"""For each command, a hypothesis strategy that draws command lines."""


@contextlib.contextmanager
def without_runs() -> Iterator[None]:
    """Ends each command where the optimisation loop would begin."""

    def enough(*_: Any, **__: Any) -> None:
        raise typer.Exit(0)

    places = ("zoo.loop.run", "zoo.benchmarking.pair", "zoo.tuning.blocks", "zoo.sparsity.ladder")
    with contextlib.ExitStack() as stack:
        for place in places:
            stack.enter_context(mock.patch(f"{place}.drive", enough))
        yield


def call(args: list[str]) -> tuple[int, str, str]:
    """Returns the exit code, the output and the errors of a command line that runs in this process."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            zoo.cli.main(args)
            code: Any = None
        except SystemExit as error:
            code = error.code
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # pyright: ignore[reportAttributeAccessIssue]
    return 0 if code is None else code, *texts


def check(args: list[str], *named: str) -> int:
    """Runs a command line, checks its exit code and its error lines, and returns the exit code."""
    code, out, err = call(args)
    assert code in (0, 1, 2), (args, code)
    assert "Traceback" not in out + err, (args, out, err)
    lines = [line for line in err.splitlines() if not line.startswith(("failed: ", "not written: "))]
    if code == 2 and args:  # without arguments, the help is shown
        assert lines, (args, out)
        assert lines[-1].startswith("error: "), (args, err)
        assert len(lines[-1]) > len("error: "), (args, err)
    assert "ZOO_TRACEBACK" not in err, (args, err)  # only unexpected errors mention it
    assert "Input should" not in err, (args, err)  # a message of pydantic
    assert not any(re.match(r"error: ([^ ]*: )?\w+Error: ", line) for line in lines), (args, err)
    assert len(lines) <= MAX_LINES, (args, err)
    assert max(map(len, lines), default=0) <= MAX_CHARACTERS, (args, err)
    for name in named if code else ():
        assert name in out + err, (args, name, err)
    return code


def fuzz(command: str, count: int, see: Callable[[int], object]) -> None:
    """Runs `count` command lines of a command, and passes each exit code to `see`."""

    checks = list(hypothesis.HealthCheck)
    settings = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": checks}

    @hypothesis.settings(max_examples=count, **settings)  # pyright: ignore[reportArgumentType]
    @hypothesis.given(COMMANDS[command])
    def drive(args: list[str]) -> None:
        see(check(args))

    with without_runs():
        drive()


def fuzz_folders(
    saved: pathlib.Path, scratch: pathlib.Path, commands: Callable[[pathlib.Path], list[str]]
) -> list[int]:
    """Damages a saved folder in many ways, one after the other, and returns the exit codes of a command on it."""
    sandbox, codes = Sandbox(scratch, saved), []
    sandbox.reset()
    for name in files_of(saved):
        for damage in damages(sandbox, name).values():
            sandbox.reset()
            damage(sandbox.thing / name)
            with without_runs(), mock.patch("zoo.benchmarking.results.Results.report", lambda self, folder: folder):
                codes.append(check(commands(sandbox.thing), str(sandbox.thing)))
    return codes


def main() -> None:
    """Prints a table of counts."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        pathlib.Path("file").write_text("mine")
        for command in COMMANDS:
            codes = collections.Counter[int]()
            fuzz(command, count, lambda code, codes=codes: codes.update([code]))
            by_code = ", ".join(f"{number} exit with {code}" for code, number in sorted(codes.items()))
            print(f"{command:10} {sum(codes.values()):5} command lines: {by_code}")


if __name__ == "__main__":
    main()
