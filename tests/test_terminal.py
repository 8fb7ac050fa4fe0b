"""Output of the command line in terminals of several widths, and without a terminal."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import numpy as np
import pandas as pd
import pytest
import rich.console
from typer.testing import CliRunner

import zoo
import zoo.cli
from tests.benchmarking.test_results import make_pair, make_results
from tests.benchmarking.test_runtimes import timed_pair
from zoo import terminal
from zoo.registry import catalogue
from zoo.reports.tables import format_comparison, format_ert, format_ranks, format_summary

LONG = "a_label_of_forty_characters_and_no_more_"
REASON = "ValueError: The budget of 10 steps has no room for the first generation of seed 3, which takes 32 steps."
WIDTHS = (60, 80, 120)


def at(monkeypatch, width):
    """Makes the output a terminal of this width."""
    for name in ("OUT", "ERR"):
        console = rich.console.Console(width=width, force_terminal=True, color_system=None, stderr=name == "ERR")
        monkeypatch.setattr(terminal, name, console)
        monkeypatch.setattr(zoo.cli, name, console, raising=False)


def call(*args):
    return CliRunner().invoke(zoo.cli.app, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def results():
    rng = np.random.default_rng(0)
    pairs = [
        make_pair(strategy, problem, scale * rng.normal(1, 0.1, (5, 4)))
        for problem, scale in (("rl/gymnasium/HalfCheetah-v5", -1234.5), ("blackbox/ellipsoidal_rotated", 1.421e-14))
        for strategy in ("random_search", LONG)
    ]
    targets = [10.0 ** (k / 5) for k in range(10, -41, -1)]
    pairs += [
        timed_pair(strategy, "blackbox/sphere", targets, [[1234.0 * k for k in range(51)]] * 3, [10**7] * 3)
        for strategy in ("random_search", LONG)
    ]
    pairs.append(make_pair("snes", "rl/gymnasium/HalfCheetah-v5", [], error=REASON))
    return make_results(*pairs, num_seeds=5)


@pytest.fixture(scope="module")
def saved(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    results.save(folder)
    return folder


@pytest.mark.parametrize("width", WIDTHS)
def test_no_number_and_no_id_is_broken(width, results, saved, monkeypatch):
    """Every cell is in one line, and no line of a table is longer than the terminal is wide."""
    at(monkeypatch, width)
    monkeypatch.setattr(zoo.Results, "report", lambda self, folder: folder / "report.md")
    result = call("report", saved)
    assert result.exit_code == 0, result.output
    lines = result.stdout.partition("\nresults in")[0].splitlines()
    assert max(map(len, lines)) <= width
    for row in format_summary(results.summary()).to_dict("records"):
        assert any(line.startswith(f"{row['problem']} (") for line in lines)
        of_row = [line for line in lines if f" {row['strategy']}" in line]
        assert of_row
        for name in ("score", "95 % interval"):
            assert any(row[name] in line for line in lines), row[name]
    (times,) = format_ert(results.ert())
    hardest = times.columns[-1]
    assert any(line.rstrip().endswith(hardest) for line in lines)
    assert any(line.rstrip().endswith(times[hardest].iloc[0]) for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_number_of_a_comparison_is_broken(width, results, saved, monkeypatch):
    at(monkeypatch, width)
    monkeypatch.setattr(zoo.cli, "write_file", lambda *_: None)
    result = call("compare", saved)
    assert result.exit_code == 0, result.output
    lines = [*result.stdout.partition("\nfigure")[0].splitlines(), *result.stderr.splitlines()]
    assert max(map(len, lines)) <= width
    with pytest.warns(UserWarning, match="With 5 seeds no difference"):
        comparison = results.compare()
    assert "With 5 seeds no difference" in " ".join(result.stderr.split())
    for row in format_comparison(comparison).to_dict("records"):
        assert any(line.strip().startswith(row["strategy"]) for line in lines)
        for name in ("difference", "95 % interval", "p (Holm)"):
            assert any(row[name] in line for line in lines), row[name]
    for row in format_ranks(comparison).to_dict("records"):
        assert any(row["mean rank"] in line and row["normalised score"] in line for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_reason_of_a_failure_can_be_read(width, saved, monkeypatch):
    at(monkeypatch, width)
    monkeypatch.setattr(zoo.Results, "report", lambda self, folder: folder / "report.md")
    result = call("report", saved)
    lines = result.stderr.splitlines()
    assert max(map(len, lines)) <= width
    assert " ".join(result.stderr.split()) == f"failed: snes on rl/gymnasium/HalfCheetah-v5: {REASON}"


def test_a_row_of_a_table_without_a_terminal_says_all(results, saved, monkeypatch):
    monkeypatch.setattr(zoo.Results, "report", lambda self, folder: folder / "report.md")
    lines = call("report", saved).stdout.splitlines()
    for row in format_summary(results.summary()).to_dict("records"):
        assert sum(all(cell in line for cell in row.values()) for line in lines) == 1


def test_forms_of_a_table(monkeypatch, capsys):
    """A table shows all columns, or drops the less important ones, or puts the labels on lines of their own."""
    frame = pd.DataFrame({"problem": ["p", "p"], "strategy": ["a" * 9, "b"], "score": ["1e-14", "2"], "s": ["3", "4"]})
    frames = [frame, frame.drop(columns="s")]

    def shown(width):
        at(monkeypatch, width)
        left_out = terminal.show_table(frames, sections=["p (f)", "p (f)"], label="strategy")
        return left_out, [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    wide = ["  strategy   score  s", "p (f)", "  aaaaaaaaa  1e-14  3", "  b              2  4"]
    assert shown(21) == ([], wide)
    assert shown(20) == (["s"], [line[:18].rstrip() for line in wide])
    stacked = ["    score  s", "p (f)", "  aaaaaaaaa", "    1e-14  3", "  b", "        2  4"]
    assert shown(17) == ([], stacked)
    assert shown(10) == (["s"], [line[:11].rstrip() if "b" not in line else line for line in stacked])


def test_words_stay_whole(monkeypatch, capsys):
    at(monkeypatch, 20)
    path = "/a/folder/with-a-long/name"
    terminal.say(("error:", "bold"), f" not in {path}, which is a-file")
    assert capsys.readouterr().out.splitlines() == ["error: not in", f"  {path},", "  which is a-file"]
    terminal.say("saved in a\tfolder  with odd\nwhitespace")
    assert capsys.readouterr().out.split() == ["saved", "in", "a", "folder", "with", "odd", "whitespace"]


def test_list_without_a_terminal_has_a_row_for_each_id():
    lines = call("list").stdout.splitlines()
    rows = [line.split("\t") for line in lines]
    assert [id for kind, id, _ in rows if kind == "strategy"] == zoo.list_strategies()
    assert [id for kind, id, _ in rows if kind == "problem"] == zoo.list_problems()
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_list_in_a_terminal(width, monkeypatch):
    at(monkeypatch, width)
    lines = call("list").stdout.splitlines()
    assert max(map(len, lines)) <= width
    words = {word.strip(",") for line in lines for word in line.split()}
    for kind in ("strategy", "problem"):
        for id, _, names in catalogue(kind):
            assert {id, *names} <= words
            assert [line for line in lines if line.split()[:1] == [id]]


def test_a_terminal_of_80_columns():
    """In a real terminal, es-zoo detects the terminal and its width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-m", "zoo", "describe", "snes"]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**env, "TERM": "dumb"}, close_fds=True
    )
    os.close(theirs)
    text = b""
    with os.fdopen(ours, "rb", buffering=0) as output:
        while True:
            try:
                part = output.read(4096)
            except OSError:  # a terminal ends this way on Linux
                break
            if not part:
                break
            text += part
    assert process.wait(timeout=60) == 0
    assert text.decode().replace("\r\n", "\n").rstrip("\n") == zoo.describe("snes", 80)


@pytest.mark.parametrize("command", ["", "list", "describe", "run", "benchmark", "report", "compare", "tickets"])
def test_help_in_80_columns(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = call(*command.split(), "--help")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for broken in ("...  ", "range", "9223372036854775807", "\N{HORIZONTAL ELLIPSIS}"):
        assert broken not in result.stdout
    if not command:
        assert [line for line in lines if line.endswith("...") and "Usage" not in line] == []
