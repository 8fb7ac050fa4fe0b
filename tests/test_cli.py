"""The command line."""

import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import zoo
import zoo.cli
from tests.benchmarking.test_results import make_pair, make_results
from tests.faults import read_only
from tests.loop.examples import assert_same_run
from zoo.loop.files import read_json, write_json

BALL = ["blackbox/sphere", "--set-problem", "num_dims=2", "--set", "population_size=4"]
RUN = ["run", "random_search", *BALL]
BENCHMARK = ["benchmark", "-s", "random_search", "-p", "blackbox/sphere", "--seeds", "2", "--steps", "16"]
SMALL = ["--set", "population_size=4", "--set-problem", "blackbox/sphere:num_dims=2"]


def call(*args):
    return CliRunner().invoke(zoo.cli.app, [str(arg) for arg in args])


def assert_error(result, *expected):
    """Asserts exit code 2 and one line with the expected parts."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for part in expected:
        assert part in line
    assert "Traceback" not in result.output


def ball():
    return zoo.make_problem("blackbox/sphere", num_dims=2)


def search():
    return zoo.make_strategy("random_search", problem=ball(), population_size=4)


# What it does


def test_list():
    result = call("list")
    assert result.exit_code == 0
    words = set(re.split(r"[\s,]+", result.stdout))
    for id in zoo.list_strategies() + zoo.list_problems():
        assert id in words or id.rpartition("/")[2] in words
    assert "OpenAI-ES" in result.stdout  # what a strategy is
    assert "gradients of E[f]" in result.stdout  # not read as markup


def test_describe():
    result = call("describe", "open_es")
    assert result.exit_code == 0
    assert result.stdout.split() == zoo.describe("open_es").split()
    assert_error(call("describe", "opne_es"), "Did you mean 'open_es'")


TICKETS = ["tickets", "snes", "supervised/digits", "--rounds", 2, "--generations", 2, "--seeds", 2]


def test_tickets(tmp_path):
    """The command prints a table and writes the tickets and two figures. With more rounds it goes on."""
    settings = ["-c", "snr", "-c", "random", "--set", "population_size=4", "--set-problem", "hidden=2"]
    result = call(*TICKETS, *settings, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    (header,) = [line.split() for line in result.stdout.splitlines() if line.startswith("round")]
    assert header == ["round", "kept", "snr", "random"]
    assert re.search(r"\b1\s+79\.7 %", result.stdout)  # 30 of 148 weights are pruned
    problem = zoo.make_problem("supervised/digits", hidden=(2,))
    tickets = zoo.load_tickets(tmp_path, problem)
    assert [len(rounds) for rounds in tickets.rounds.values()] == [2, 2]
    assert {path.name for path in tmp_path.glob("*.png")} == {"ladder.png", "layers.png"}
    assert call(*TICKETS, *settings, "--rounds", 3, "--out", tmp_path).exit_code == 0
    assert len(zoo.load_tickets(tmp_path, problem).rounds["snr"]) == 3


def test_tickets_says_what_is_wrong(tmp_path):
    assert_error(call(*TICKETS, "-c", "snrr", "--out", tmp_path), "Lottery.score must be one of 'snr'", "'snrr'")
    assert_error(call(*TICKETS, "--prune", "1.5", "--out", tmp_path), "prune_fraction must be at most 1")
    assert_error(call(*TICKETS, "--rounds", "0", "--out", tmp_path), "--rounds must be at least 1, got '0'")
    assert_error(call(*TICKETS, "--set", "sigm=1", "--out", tmp_path), "has no setting 'sigm'")
    assert not list(tmp_path.iterdir())


def test_version():
    result = call("--version")
    assert result.exit_code == 0
    assert result.stdout.strip() == f"es-zoo {zoo.__version__}"


def test_help():
    for args in (["--help"], ["-h"], ["run", "-h"], ["benchmark", "--help"]):
        result = call(*args)
        assert result.exit_code == 0
        assert "Usage" in result.stdout
    assert "benchmark" in call().output  # without a command, the help is shown


def test_python_m_zoo():
    command = [sys.executable, "-m", "zoo", "list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "open_es" in done.stdout
    assert done.stderr == ""


def test_run():
    result = call(*RUN, "--generations", 4, "--key", 3)
    assert result.exit_code == 0, result.output
    expected = zoo.run(search(), ball(), 3, num_generations=4)
    assert f"random_search on blackbox/sphere: fitness {expected.score:.6g}" in result.stdout
    assert f"best fitness of a member {expected.best_fitness:.6g}; 4 generations, 16 steps" in result.stdout
    assert "stopped by budget" in result.stdout
    assert result.stderr == ""
    other = call(*RUN, "--generations", 4, "--key", 4)
    assert f"fitness {expected.score:.6g}" not in other.stdout


def test_run_with_a_setting_and_steps():
    result = call(*RUN, "--steps", 15, "--set", "sigma=0.5", "--key", 3)
    assert result.exit_code == 0, result.output
    expected = zoo.run(search().replace(sigma=0.5), ball(), 3, num_steps=15)
    assert f"fitness {expected.score:.6g}" in result.stdout
    assert "3 generations, 12 steps" in result.stdout


def test_run_with_a_target():
    result = call(*RUN, "--generations", 4, "--target", 1e9)
    assert result.exit_code == 0, result.output
    assert "1 generations, 4 steps" in result.stdout
    assert "stopped by target" in result.stdout


def test_run_into_a_folder_and_go_on(tmp_path):
    out = tmp_path / "out"
    result = call(*RUN, "--generations", 4, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"saved in {out}" in result.stdout.replace("\n", "")
    assert zoo.load_run(out).num_generations == 4
    result = call(*RUN, "--generations", 6, "--out", out)
    assert result.exit_code == 0, result.output
    assert "6 generations, 24 steps" in result.stdout
    expected = zoo.run(search(), ball(), num_generations=6)
    assert_same_run(zoo.load_run(out), expected)
    # Another run cannot use the folder.
    assert_error(
        call(*RUN, "--generations", 6, "--out", out, "--key", 1), "another run: key: 0 there, 1 here", str(out)
    )


def test_resume_a_run_from_its_folder_alone(tmp_path):
    """A killed run is finished, and then goes on to another budget."""

    def killed(progress):
        if progress.generation >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zoo.run(search(), ball(), 3, num_generations=6, checkpoint=tmp_path / "checkpoints", callback=killed)
    result = call("run", "--resume", tmp_path)
    assert result.exit_code == 0, result.output
    assert "random_search on blackbox/sphere: fitness" in result.stdout
    expected = zoo.run(search(), ball(), 3, num_generations=6)
    assert_same_run(zoo.load_run(tmp_path), expected)
    result = call("run", "--resume", tmp_path, "--generations", 8)
    assert re.match(r"goes on from generation 6 in .*/checkpoints/, saved \d{4}-\d\d-\d\d", result.stderr)
    assert zoo.load_run(tmp_path).num_generations == 8
    # A result without checkpoints is computed again.
    expected.save(tmp_path / "saved")
    assert call("run", "--resume", tmp_path / "saved").exit_code == 0
    assert_same_run(zoo.load_run(tmp_path / "saved"), expected)


def test_resume_says_what_is_wrong(tmp_path):
    assert_error(call("run", "--resume", tmp_path), "No run in", str(tmp_path))
    wrong = "Leave out strategy, problem, --key, --set, --set-problem"
    assert_error(call(*RUN, "--resume", tmp_path, "--key", 1), wrong)
    assert_error(call("run", "snes"), "a strategy and a problem, or --resume")
    (tmp_path / "run.json").write_text('{"call": 3}')
    assert_error(call("run", "--resume", tmp_path), "run.json is damaged")
    problem = zoo.from_function(lambda x: (x**2).sum(), jax.numpy.zeros(2))
    zoo.run(search(), problem, num_generations=1).save(tmp_path)
    assert_error(call("run", "--resume", tmp_path), "The problem of this run is not in the registry")


def test_benchmark(tmp_path):
    result = call(*BENCHMARK, "-s", "snes", *SMALL, "--set", "snes:sigma=0.5", "--key", 3, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    results = zoo.Results.load(tmp_path)
    settings = {pair.strategy: pair.info["strategy_settings"] for pair in results.pairs}
    assert {name: (s["population_size"], s["sigma"]) for name, s in settings.items()} == {
        "random_search": (4, 2.0),
        "snes": (4, 0.5),
    }
    assert results.pairs[0].info["problem_settings"]["num_dims"] == 2
    assert results.metadata["num_seeds"] == 2
    expected = zoo.benchmark(
        {"random_search": search()}, {"p": ball()}, num_seeds=2, num_steps=16, key=3, progress=False
    )
    assert results.scores("random_search", "blackbox/sphere").tolist() == expected.scores("random_search", "p").tolist()
    for part in ("snes", "rank", f"results in {tmp_path}", "curves_"):
        assert part in result.stdout
    report = tmp_path / "report.md"
    text = report.read_text()

    report.unlink()
    for picture in tmp_path.glob("*.png"):
        picture.unlink()
    result = call("report", tmp_path)
    assert result.exit_code == 0, result.output
    assert report.read_text() == text
    assert len(list(tmp_path.glob("curves_*.png"))) == 1


def test_nothing_of_the_table_is_cut_off(tmp_path):
    # The output is not a terminal here, but like a log or a file.
    pairs = [
        make_pair(strategy, problem, [[1e4, 1.2345e-5], [1e4, 6.7891e-5]])
        for problem in ("blackbox/sphere", "blackbox/rastrigin")
        for strategy in ("random_search", "cma_es")
    ]
    results = make_results(*pairs)
    results.save(tmp_path)
    result = call("report", tmp_path)
    assert result.exit_code == 0, result.output
    for row in results.summary().itertuples():
        for part in (row.strategy, row.problem, f"{row.score:.4g}", f"{row.low:.4g}", f"{row.high:.4g}"):
            assert part in result.stdout


def test_benchmark_says_what_it_uses_again(tmp_path):
    command = [*BENCHMARK, *SMALL, "--out", tmp_path]
    assert "pair" not in call(*command).stderr
    assert f"1 pair reused from {tmp_path}/, computed " in call(*command).stderr
    assert "pair" not in call(*command, "--fresh").stderr
    (path,) = tmp_path.rglob("pair.json")
    info = read_json(path)
    info["identity"]["versions"]["zoo"] = "0"
    write_json(path, info)
    assert "1 pair reused" in call(*command, "--accept-versions").stderr
    assert f"computed again, because of a difference: zoo: 0 there, {zoo.__version__} here" in call(*command).stderr


def test_labels_are_text(tmp_path):
    label = "[red]x[/wrong]\x1b[31m\n|"
    make_results(make_pair(label, label, [[2.0], [1.0]]), make_pair("b", label, [], error=label)).save(tmp_path)
    result = call("report", tmp_path)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert "[red]x[/wrong]" in result.stdout
    assert "failed: b on [red]x[/wrong]" in result.stderr


def test_where_nothing_can_be_written(tmp_path, monkeypatch):
    """Finished results are shown. Other commands end with one line before anything is computed."""
    make_results(make_pair("a", "p", [[2.0], [1.0]])).save(tmp_path / "benchmark")
    finished = [*RUN, "--generations", 4, "--out", tmp_path / "run"]
    assert call(*finished).exit_code == 0
    read_only(monkeypatch)
    for args, shown in ((("report", tmp_path / "benchmark"), "1.5"), (finished, "4 generations")):
        result = call(*args)
        assert result.exit_code == 0, result.output
        assert shown in result.stdout
        assert "not written: " in result.stderr
        assert "report.md" not in result.stdout
        assert "Read-only file system" in result.stderr
    monkeypatch.setattr("zoo.loop.compiled.start", None)
    for command in (RUN, BENCHMARK):
        assert_error(call(*command, "--out", tmp_path / "new", "--no-cache"), "needs to write in", "Read-only file sys")


def test_benchmark_where_everything_fails(monkeypatch, tmp_path):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    result = call("benchmark", "-s", "random_search", "-p", "supervised/mnist", "--steps", 10, "--out", tmp_path)
    assert result.exit_code == 1
    assert "failed: random_search on supervised/mnist: FileNotFoundError" in result.stderr
    assert "Traceback" not in result.output
    assert (tmp_path / "report.md").is_file()


def test_a_setting_goes_to_every_strategy_that_has_it(tmp_path):
    result = call(*BENCHMARK, "-s", "open_es", *SMALL, "--set", "learning_rate=0.125", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    settings = {pair.strategy: pair.info["strategy_settings"] for pair in zoo.Results.load(tmp_path).pairs}
    assert settings["open_es"]["learning_rate"] == 0.125
    assert "learning_rate" not in settings["random_search"]


def test_interrupted(monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo, "run", interrupt)
    result = call(*RUN, "--generations", 4)
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert "Traceback" not in result.output


# What it refuses


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["opne_es", "blackbox/sphere"], "'open_es'"),
        (["open_es", "blackbox/spere"], "'blackbox/sphere'"),
        (["open_es", "blackbox/sphere", "--set", "sgima=0.1"], "Did you mean 'sigma'?"),
        (["open_es", "blackbox/sphere", "--set", "sigma"], "name=value"),
        (["open_es", "blackbox/sphere", "--set", "=3"], "name=value"),
        (["open_es", "blackbox/sphere", "--set", "sigma=-1"], "greater than 0"),
        (["open_es", "blackbox/sphere", "--set", "sigma=abc"], "must be a number, got 'abc'"),
        (["open_es", "blackbox/sphere", "--set", "sigma=true"], "must be a number, got True"),
        (["open_es", "blackbox/sphere", "--set", "sigma=[1, 2]"], "must be a number"),
        (["open_es", "blackbox/sphere", "--set", "population_size=8.5"], "must be a whole number, got 8.5"),
        (["open_es", "blackbox/sphere", "--set", "population_size=7"], "must be even, got 7"),
        (["open_es", "blackbox/sphere", "--set", "optimizer=adamm"], "'adamm'"),
        (["open_es", "blackbox/sphere", "--set", "shaping=rank"], "shaping must be one of"),
        (["open_es", "blackbox/sphere", "--set-problem", "dims=3"], "no setting 'dims'"),
        (["open_es", "blackbox/sphere", "--set-problem", "num_dims=many"], "must be a whole number, got 'many'"),
        (["open_es", "blackbox/sphere", "--steps", "10", "--generations", "10"], "one budget"),
        (["open_es", "blackbox/sphere", "--steps", "0"], "--steps must be at least 1, got '0'"),
        (["open_es", "blackbox/sphere", "--generations", "-1"], "--generations must be at least 1, got '-1'"),
        (["open_es", "supervised/mnist"], "ZOO_DATA"),
        (["open_es", "supervised/mnist", "--set-problem", "data_dir=/no/such/folder"], "/no/such/folder/mnist"),
    ],
)
def test_run_refuses(args, expected, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    assert_error(call("run", *args), expected)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["-s", "snez"], "'snes'"),
        (["-p", "rl/CartPole"], "'rl/CartPole-v1'"),
        (["-s", "random_search"], "label 'random_search'"),
        (["--set", "snes:sigma=1"], "'snes' is not in this benchmark"),
        (["--set", "sgima=1"], "Did you mean 'sigma'?"),
        (["--set", "sigma"], "name=value"),
        (["--set-problem", "rl/Pendulum-v1:hidden=(3,)"], "'rl/Pendulum-v1' is not in this benchmark"),
        (["--set-problem", "blackbox/sphere:dims=3"], "no setting 'dims'"),
        (["--steps", "many"], "got 'many'"),
        (["--steps", "inf"], "got 'inf'"),
        (["--steps", "rl/Pendulum-v1=10"], "'rl/Pendulum-v1'"),
        (["--steps", "-3"], "--steps must be at least 1, got '-3'"),
        (["--seeds", "0"], "--seeds must be at least 1, got '0'"),
    ],
)
def test_benchmark_refuses(args, expected, tmp_path):
    assert_error(call(*BENCHMARK, "--out", tmp_path / "out", *args), expected)
    assert not (tmp_path / "out").exists()


def test_out_is_a_file(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    assert_error(call(*RUN, "--generations", 4, "--out", file), "file")
    assert_error(call(*BENCHMARK, *SMALL, "--out", file), "file")
    assert file.read_text() == "mine"


def test_compare(tmp_path):
    rng = np.random.default_rng(0)
    pairs = [
        make_pair(name, problem, rng.normal(mean, 1, (8, 2)))
        for problem in ("p", "q")
        for name, mean in (("a", 0.0), ("b", 9.0), ("c", 9.0))
    ]
    results = make_results(*pairs, num_seeds=8)
    results.save(tmp_path)
    result = call("compare", tmp_path, "--baseline", "b", "--correction", "none", "--test", "permutation", "-p", "q")
    assert result.exit_code == 0, result.output
    assert not result.stderr
    (row,) = [line.split() for line in result.stdout.splitlines() if "a - b" in line]
    assert row[-2:] == ["0.0078", "a"]
    assert "a - c" not in result.stdout
    assert (tmp_path / "comparison.png").is_file()
    assert_error(call("compare", tmp_path, "--baseline", "d"), "baseline must be one of None, 'a', 'b', 'c', got 'd'.")
    assert_error(call("compare", tmp_path, "--correction", "x"), "correction must be one of None, 'holm', 'fdr'")
    assert_error(call("compare", tmp_path / "nowhere"), "No benchmark in", "nowhere")


def test_nothing_to_report(tmp_path):
    assert_error(call("report", tmp_path / "nowhere"), "No benchmark in", "nowhere")
    assert_error(call("report", tmp_path), "No benchmark in")
    (tmp_path / "benchmark.json").write_text("{")
    assert_error(call("report", tmp_path))


def test_a_folder_of_another_kind(tmp_path):
    """The error says what the folder holds and which command shows it. Nothing is written into the folder."""
    make_results(make_pair("a", "p", [[2.0], [1.0]])).save(tmp_path / "benchmark")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "tickets").mkdir()
    files = {"run": "run.json", "run/checkpoints": "call.json", "tickets": "tickets.json"}
    for folder, file in files.items():
        (tmp_path / folder / file).write_text("{}")
    run, benchmark, tickets = (tmp_path / name for name in ("run", "benchmark", "tickets"))
    assert_error(call("report", run), f"{run} holds a run, not a benchmark: `zoo run --resume {run}` prints")
    assert_error(call("report", run / "checkpoints"), f"holds a run, not a benchmark: `zoo run --resume {run}/check")
    assert_error(call("report", tickets), f"{tickets} holds lottery tickets, not a benchmark: `zoo tickets ")
    assert_error(call("run", "--resume", benchmark), f"holds a benchmark, not a run: `zoo report {benchmark}`")
    for command, kind in ((RUN, "a run"), (BENCHMARK, "a benchmark"), (TICKETS, "lottery tickets")):
        for folder, holds in ((run, "a run"), (benchmark, "a benchmark"), (tickets, "lottery tickets")):
            if holds != kind:
                before = sorted(tmp_path.rglob("*"))
                expected = f"--out {folder}: the folder holds {holds} ("
                assert_error(call(*command, "--out", folder), expected, f"Choose another folder for {kind}.")
                assert sorted(tmp_path.rglob("*")) == before


def test_report_of_a_benchmark_without_pairs(tmp_path):
    facts = {"pairs": [["a", "b"]], "date": "", "num_seeds": 1, "key": 0, "versions": {}, "git_commit": None}
    facts["device"] = {"count": 1, "kind": "cpu"}
    (tmp_path / "benchmark.json").write_text(json.dumps(facts))
    result = call("report", tmp_path)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)


def test_unknown_commands_and_options():
    shows = "--help` shows what it takes."
    assert_error(call("rnu"), "No such command 'rnu'. Did you mean 'run'? `", shows)
    assert_error(call("list", "--nope"), "--nope. `", "list --help` shows what it takes.")
    assert_error(call("describe"), "Missing argument 'ID'. `", shows)
    assert_error(call("run", "open_es"), "run needs a strategy and a problem")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([*RUN, "--steps", "ten"], "--steps takes a whole number such as 20000 or 2e4, got 'ten'."),
        ([*RUN, "--generations", "1.5"], "--generations takes a whole number such as 20000 or 2e4, got '1.5'."),
        ([*RUN, "--key", "nan"], "--key takes a whole number"),
        ([*RUN, "--steps", "1e19"], "--steps must be at most 9223372036854775807, got '1e19'."),
        ([*RUN, "--devices", "0"], "--devices must be at least 1, got '0'."),
        ([*RUN, "--target", "low"], "--target takes a number such as 0.1, got 'low'."),
        ([*BENCHMARK, "--seeds", "2e6"], "--seeds must be at most 1000000, got '2e6'."),
        ([*BENCHMARK, "--steps", "blackbox/sphere=x"], "--steps for blackbox/sphere takes a whole number such as"),
        (
            ["tickets", "snes", "supervised/digits", "--prune", "half"],
            "--prune takes a number such as 0.1, got 'half'.",
        ),
    ],
)
def test_numbers_of_options(args, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_error(call(*args), f"error: {expected}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "number"), [("20000", 20_000), ("2e4", 20_000), ("1_000", 1000), ("9" * 18, 10**18 - 1)]
)
def test_whole_numbers(text, number):
    assert zoo.cli._whole("--steps", text) == number
    assert type(zoo.cli._whole("--steps", text)) is int
    assert zoo.cli._whole("--steps", None) is None


# Parsing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sigma=0.1", ("sigma", 0.1)),
        ("sigma=1e-3", ("sigma", 1e-3)),
        ("size=8", ("size", 8)),
        ("hidden=(8, 8)", ("hidden", (8, 8))),
        ("hidden=[8]", ("hidden", [8])),
        ("flag=True", ("flag", True)),
        ("flag=false", ("flag", False)),
        ("schedule=none", ("schedule", None)),
        ("schedule=None", ("schedule", None)),
        ("shaping=none", ("shaping", "none")),
        ("activation=relu", ("activation", "relu")),
        ("activation='relu'", ("activation", "relu")),
        ("data_dir=/tmp/a=b", ("data_dir", "/tmp/a=b")),
        ("empty=", ("empty", "")),
        (" sigma =0.1", ("sigma", 0.1)),
    ],
)
def test_parse_a_setting(text, expected):
    parsed = zoo.cli._parse_setting(text)
    assert parsed == expected
    assert type(parsed[1]) is type(expected[1])


def test_parse_settings():
    assert zoo.cli._parse_settings(None) == {}
    assert zoo.cli._parse_settings(["a=1", "b=x", "a=2"]) == {"a": 2, "b": "x"}


def test_parse_settings_by_label():
    labels = {"snes": "snes", "open_es": {"id": "open_es"}}
    assert zoo.cli._by_label(None, labels, "--set", "strategy") == {}
    assert zoo.cli._by_label(["snes:sigma=0.1", "snes:population_size=4"], labels, "--set", "strategy") == {
        "snes": {"sigma": 0.1, "population_size": 4}
    }
    # The later setting wins. A colon in the value belongs to the value.
    assert zoo.cli._by_label(["sigma=1", "snes:sigma=2"], labels, "--set", "strategy") == {
        "snes": {"sigma": 2},
        "open_es": {"sigma": 1},
    }
    assert zoo.cli._by_label(["snes:data_dir=C:/x"], labels, "--set", "strategy") == {"snes": {"data_dir": "C:/x"}}


def test_parse_steps():
    problems = ["a/b", "c"]
    assert zoo.cli._parse_steps(None, problems) is None
    assert zoo.cli._parse_steps(["100"], problems) == {"a/b": 100, "c": 100}
    assert zoo.cli._parse_steps(["1e5", "c=1_000"], problems) == {"a/b": 100_000, "c": 1000}
    assert zoo.cli._parse_steps(["c=7"], problems) == {"c": 7}
    for text in ("x", "", "c=", "c=x", "inf", "nan"):
        with pytest.raises(ValueError, match=r"--steps( for c)? takes a whole number such as 20000 or 2e4, got"):
            zoo.cli._parse_steps([text], problems)


@pytest.mark.parametrize("text", ["1.5", "c=0.5", "1e-3"])
def test_steps_are_whole_numbers(text):
    with pytest.raises(ValueError, match=r"--steps( for c)? takes a whole number"):
        zoo.cli._parse_steps([text], ["c"])


def test_keys_are_seeds():
    # `--key` of the command line gives the same numbers as `key` of the library.
    one = zoo.run(search(), ball(), jax.random.key(3), num_generations=4)
    assert f"{one.score:.6g}" in call(*RUN, "--generations", 4, "--key", 3).stdout


SWEEP = ["sweep", "snes", "blackbox/sphere", "--settings", 4, "--seeds", 2, "--test-seeds", 2, "--generations", 3]


def test_sweep(tmp_path):
    space = ["--space", "sigma=log_uniform(0.01, 1)", "--space", "population_size=integers(4, 8, step=4)"]
    result = call(*SWEEP, *space, "--sampler", "grid", "--out", tmp_path / "found")
    assert result.exit_code == 0
    assert "fitness (lower is better) on 2 tuning seeds" in result.stdout
    assert "Sweep of snes on blackbox/sphere: 4 settings x 2 seeds" in result.stdout
    assert (tmp_path / "found" / "sweep.png").stat().st_size > 10_000
    again = call("report", tmp_path / "found")
    assert again.exit_code == 0
    assert again.stdout.partition("rank")[2] == result.stdout.partition("rank")[2]  # progress bars come before


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("sigma", "--space takes name=values"),
        ("sigma=log_uniform(0, 1)", "log_uniform needs a positive low"),
        ("sigma=uniform(1)", "uniform takes LOW and HIGH"),
        ("sigma=normal(0, 1)", "there is no distribution 'normal'"),
    ],
)
def test_bad_spaces(space, words):
    assert_error(call(*SWEEP, "--space", space), words)
