"""The command line: `zoo list`, `describe`, `run`, `benchmark`, `sweep`, `report`, `compare`, `tickets`."""

import ast
import contextlib
import functools
import json
import math
import os
import pathlib
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

import zoo
from zoo import registry, terminal
from zoo._version import __version__
from zoo.core.checks import shown
from zoo.core.text import plain_text
from zoo.loop.call import CHECKPOINTS, load_call, make_call
from zoo.loop.files import below, write_file
from zoo.registry import catalogue, label_of, valid_settings
from zoo.terminal import ERR, say, show_table

if TYPE_CHECKING:
    from jax.sharding import Mesh

_IN_THE_INPUT = (ValueError, TypeError, OSError, ImportError, LookupError, OverflowError, MemoryError)
"""Errors about what was asked for, or about a file that is read or written. Any other error is a bug in the library."""
_MAX_MESSAGE = 1000  # characters of a message, which may contain a value of any length


class _Commands(typer.core.TyperGroup):
    """The commands. Whatever ends one of them, it prints one line and sets the exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs a command, and exits with its code."""
        try:
            with _clear_errors(), warnings.catch_warnings():
                warnings.showwarning = _show_warning
                code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except typer.Exit as error:
            code = error.exit_code
        sys.exit(code)

    def invoke(self, ctx: Any) -> Any:
        """Runs a command after its arguments were read."""
        with _clear_errors():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    help="A zoo of evolution strategies in JAX.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Numbers are read by `_whole` and `_number`, whose messages do not change with the version of typer.
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of the strategy. May be repeated."),
]
SetProblem = Annotated[
    list[str] | None,
    typer.Option("--set-problem", metavar="NAME=VALUE", help="A setting of the problem. May be repeated."),
]
_MAX = 2**63 - 1  # the largest whole number of an option
_MAX_SEEDS = 1_000_000  # all seeds of a pair run at once
Key = Annotated[str | None, typer.Option("--key", metavar="N", help="Seed of all randomness.  [default: 0]")]
Versions = Annotated[
    bool,
    typer.Option("--accept-versions", help="Also use results that another version of the zoo or of JAX computed."),
]
Cache = Annotated[bool, typer.Option("--cache/--no-cache", help="Keep compiled programs for the next call.")]
Devices = Annotated[str | None, typer.Option(metavar="N", help="Split each population over N devices.  [default: 1]")]
Steps = Annotated[str | None, typer.Option(metavar="N", help="Budget in problem steps, such as 20000 or 2e4.")]


# Typer keeps the lines of a paragraph as they are if it begins with \b.
_RUN_EXAMPLES = """\b
Examples:
  zoo run cma_es blackbox/rastrigin --steps 20000 --set sigma=2
  zoo run '{"id": "cma_es", "sigma": 2}' blackbox/rastrigin --out my_run
  zoo run --resume my_run --steps 40000"""
_BENCHMARK_EXAMPLE = """\b
Example:
  zoo benchmark -s cma_es -s snes -p blackbox/sphere -p blackbox/rastrigin \\
    --seeds 3 --steps 10000 --set snes:sigma=1 --out my_results"""
_COMPARE_EXAMPLE = """\b
Example:
  zoo compare my_results --baseline cma_es"""
_SWEEP_EXAMPLE = """\b
Example:
  zoo sweep open_es supervised/digits --generations 200 \\
    --space "sigma=log_uniform(0.01, 1)" --space optimizer=adam,sgd"""


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Bad input ends it with one line and exit code 2. A benchmark of which every pair failed ends with exit code 1.
    """
    try:
        app(args)
    finally:
        _let_go_of_output()


def _let_go_of_output() -> None:
    """Drops output that cannot be written. Otherwise Python would try again at its exit, and print a traceback."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _clear_errors() -> Iterator[None]:
    """Turns an error into one line and an exit code: 2 if it is about the input, else 1."""
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception as error:
        if os.environ.get("ZOO_TRACEBACK"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # pyright: ignore[reportAttributeAccessIssue]
            raise typer.Exit(2) from None
        code = 2 if isinstance(error, _IN_THE_INPUT) or hasattr(error, "format_message") else 1
        say(("error:", "bold red"), f" {_message(error)}", to=ERR)
        raise typer.Exit(code) from None
    except KeyboardInterrupt:
        say("interrupted; what was finished is saved", to=ERR)
        raise typer.Exit(130) from None


def _show_warning(message: Warning | str, *_: Any) -> None:
    """Prints a warning without the line of code that it came from."""
    say(("warning:", "yellow"), f" {_short(message)}", to=ERR)


def _message(error: Any) -> str:
    """Returns the message of an error on one line."""
    if hasattr(error, "format_message"):  # an error in the options, which typer found
        message = error.format_message()
        if getattr(error, "ctx", None) is not None:
            end = "" if message.endswith((".", "?")) else "."
            message = f"{message}{end} `{error.ctx.command_path} --help` shows what it takes."
    elif isinstance(error, _IN_THE_INPUT) and str(error):
        message = _words(error)
    else:
        message = f"{type(error).__name__}: {error}. ZOO_TRACEBACK=1 shows where."
    return _short(message)


def _words(error: Exception) -> str:
    """Returns what an error says; a KeyError would put it in quotes."""
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)


def _short(message: object) -> str:
    """Returns a message on one line, with its middle cut out if it is very long."""
    text = plain_text(message)
    half = _MAX_MESSAGE // 2
    return text if len(text) <= _MAX_MESSAGE else f"{text[:half]} ... {text[-half:]}"


@contextlib.contextmanager
def _naming(folder: pathlib.Path) -> Iterator[None]:
    """Adds the name of a folder to errors about its contents."""
    try:
        yield
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if str(folder) in str(error):
            raise
        if isinstance(error, _IN_THE_INPUT):
            raise ValueError(f"{folder}: {_words(error) or type(error).__name__}") from error
        raise RuntimeError(f"{folder}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _unless_read_only() -> Iterator[None]:
    """Prints a line instead of failing if the folder cannot be written. The results were already printed."""
    try:
        yield
    except OSError as error:
        say(f"not written: {plain_text(error)}", to=ERR, style="dim")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        say(f"es-zoo {__version__}")
        raise typer.Exit


@app.command("list")
def list_command() -> None:
    """List strategies and problems.

    Without a terminal, such as in a pipe, prints one line for each id. It has three columns, separated by tabs:
    "strategy" or "problem", the id, and a summary.
    """
    for kind, title in (("strategy", "strategies"), ("problem", "problems")):
        rows = catalogue(kind)
        if terminal.width() is not None:
            terminal.show_entries(title, [(id, summary, ", ".join(names)) for id, summary, names in rows])
            say("")
            continue
        lines = [(id, summary) for row, summary, names in rows for id in _ids(row, names)]
        for line in sorted(lines):
            print(kind, *line, sep="\t")
    if terminal.width() is not None:
        say("`zoo describe ID` explains one of them, with its settings.")


def _ids(row: str, names: list[str]) -> list[str]:
    """Returns all ids of a row of the registry. If the row is a namespace, these are the names in it."""
    return [f"{row[:-1]}{name}" for name in names] if row.endswith("/*") else [row]


@app.command("describe")
def describe_command(
    id: Annotated[str, typer.Argument(metavar="ID", help="Id of a strategy or a problem, such as open_es.")],
) -> None:
    """Explain a strategy or a problem, and its settings."""
    terminal.show_lines(zoo.describe(id, min(terminal.width() or 80, 100)))


@app.command("run", epilog=_RUN_EXAMPLES)
def run_command(
    strategy: Annotated[
        str | None, typer.Argument(metavar="STRATEGY", help="Id of a strategy, such as open_es, or JSON.")
    ] = None,
    problem: Annotated[
        str | None, typer.Argument(metavar="PROBLEM", help="Id of a problem, such as rl/CartPole-v1, or JSON.")
    ] = None,
    steps: Steps = None,
    generations: Annotated[str | None, typer.Option(metavar="N", help="Budget in generations.")] = None,
    target: Annotated[
        str | None, typer.Option(metavar="SCORE", help="Stop when the headline score is at least this good.")
    ] = None,
    converged: Annotated[bool, typer.Option("--converged", help="Stop when the search has converged.")] = False,
    key: Key = None,
    settings: Set = None,
    problem_settings: SetProblem = None,
    out: Annotated[
        pathlib.Path | None,
        typer.Option(
            metavar="FOLDER", help="Save the result and checkpoints there. An interrupted run goes on from there."
        ),
    ] = None,
    resume: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FOLDER", help="Go on with the run in this folder, also to another budget, or repeat it."),
    ] = None,
    log: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE", help="Write a CSV file with a row per generation while the run runs."),
    ] = None,
    tensorboard: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FOLDER", help="Write curves for TensorBoard there while the run runs."),
    ] = None,
    accept_versions: Versions = False,
    devices: Devices = None,
    cache: Cache = True,
) -> None:
    """Run one strategy on one problem."""
    _keep_programs(cache)
    budget: dict[str, Any] = {
        "num_steps": _whole("--steps", steps),
        "num_generations": _whole("--generations", generations),
        "target": None if target is None else _number("--target", target),
        "stop": zoo.Converged() if converged else None,
    }
    seed, mesh = _whole("--key", key, least=-_MAX), _mesh(devices)
    if resume is not None:
        given = {"strategy": strategy, "problem": problem, "--key": key, "--out": out}
        given |= {"--set": settings, "--set-problem": problem_settings}
        if any(value is not None for value in given.values()):
            names = ", ".join(name for name, value in given.items() if value is not None)
            raise ValueError(f"--resume takes the run as it was saved in its folder. Leave out {names}.")
        with _naming(resume), _pointing_to(resume, "a run"):
            call, checkpoints, budget = _stored_run(resume, budget)
            made_strategy, made, made_key = make_call(call, None, None)
        strategy, problem, out = call["strategy"]["id"], call["problem"]["id"], resume
    elif strategy is None or problem is None:
        raise ValueError("run needs a strategy and a problem, or --resume and the folder of a run.")
    else:
        _check_kind(out, "a run")
        of_strategy, of_problem = _parse_settings(settings), _parse_settings(problem_settings)
        given_strategy, given_problem = _parse_spec(strategy, "strategy"), _parse_spec(problem, "problem")
        made = registry.given_problem(given_problem, of_problem)
        made_strategy = registry.given_strategy(given_strategy, of_strategy, "run", made)
        strategy, problem = _label(given_strategy, of_strategy), _label(given_problem, of_problem)
        made_key, checkpoints = seed or 0, None if out is None else below(out, CHECKPOINTS)
    result = zoo.run(
        made_strategy,
        made,
        made_key,
        **budget,
        callback=None if tensorboard is None else zoo.callbacks.TensorBoard(tensorboard),
        log=log,
        checkpoint=checkpoints,
        accept_versions=accept_versions,
        progress=True,
        mesh=mesh,
    )
    is_saved = False
    if out is not None:
        with _unless_read_only():
            result.save(out)
            is_saved = True
    metrics = ", ".join(f"{name} {value:.6g}" for name, value in result.metrics.items())
    say((plain_text(strategy), "bold"), " on ", (plain_text(problem), "bold"), f": {metrics}")
    say(
        f"best fitness of a member {result.best_fitness:.6g}; {result.num_generations} generations, "
        f"{result.num_steps:,} steps, {result.seconds:.2f} s (and {result.compile_seconds:.1f} s to compile); "
        f"stopped by {result.stopped_by}"
    )
    if result.overshoot:
        say(f"a last generation of {result.overshoot:,} steps did not fit in the budget and was dropped")
    if is_saved:
        say(f"saved in {out}")


@app.command("benchmark", epilog=_BENCHMARK_EXAMPLE)
def benchmark_command(
    strategies: Annotated[
        list[str],
        typer.Option("--strategy", "-s", metavar="ID", help="Id of a strategy, or JSON. Repeat it for several."),
    ],
    problems: Annotated[
        list[str],
        typer.Option("--problem", "-p", metavar="ID", help="Id of a problem, or JSON. Repeat it for several."),
    ],
    seeds: Annotated[str, typer.Option(metavar="N", help="Seeds per pair of strategy and problem.")] = "5",
    steps: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N", help="Budget in problem steps, for all problems; or PROBLEM=N for one. May be repeated."
        ),
    ] = None,
    key: Key = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of every strategy that has it; or STRATEGY:NAME=VALUE for one. May be repeated.",
        ),
    ] = None,
    problem_settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set-problem",
            metavar="NAME=VALUE",
            help="A setting of every problem that has it; or PROBLEM:NAME=VALUE for one. May be repeated.",
        ),
    ] = None,
    tune: Annotated[
        str | None,
        typer.Option(metavar="N", help="Try N settings of each strategy on each problem first.  [default: none]"),
    ] = None,
    tune_seeds: Annotated[str, typer.Option(metavar="N", help="Tuning seeds per setting.")] = "3",
    out: Annotated[
        pathlib.Path,
        typer.Option(
            metavar="FOLDER", help="Folder for results, report and curves. Pairs that are finished there are reused."
        ),
    ] = pathlib.Path("results"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute all pairs, also those that are finished.")] = False,
    accept_versions: Versions = False,
    executor: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="local: one pair after the other, in this process. ray: in parallel, by Ray workers."
        ),
    ] = "local",
    devices: Devices = None,
    cache: Cache = True,
) -> None:
    """Compare strategies on problems.

    Prints a table, and writes a report and learning curves.
    """
    _keep_programs(cache)
    _check_kind(out, "a benchmark")
    by_label = _parse_specs(strategies, "strategy"), _parse_specs(problems, "problem")
    results = zoo.benchmark(
        *by_label,
        num_seeds=_whole("--seeds", seeds, most=_MAX_SEEDS),
        num_steps=_parse_steps(steps, list(by_label[1])),
        key=_whole("--key", key, least=-_MAX) or 0,
        strategy_settings=_by_label(settings, by_label[0], "--set", "strategy"),
        problem_settings=_by_label(problem_settings, by_label[1], "--set-problem", "problem"),
        tune=_whole("--tune", tune, least=2, most=_MAX_SEEDS),
        tune_seeds=_whole("--tune-seeds", tune_seeds, most=_MAX_SEEDS),
        out=out,
        fresh=fresh,
        accept_versions=accept_versions,
        executor=executor,
        mesh=_mesh(devices),
    )
    _show(results, out, out)
    if len(results.failures) == len(results.pairs):
        raise typer.Exit(1)


@app.command("sweep", epilog=_SWEEP_EXAMPLE)
def sweep_command(
    strategy: Annotated[str, typer.Argument(metavar="STRATEGY", help="Id of a strategy, such as open_es, or JSON.")],
    problem: Annotated[
        str, typer.Argument(metavar="PROBLEM", help="Id of a problem, such as supervised/digits, or JSON.")
    ],
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUES",
            help="Values of a setting: a list a,b,c, uniform(LOW, HIGH), log_uniform(LOW, HIGH), integers(LOW, HIGH, "
            "step=1, log=False), or times(LOW, HIGH), which multiplies the default. May be repeated.  [default: the "
            "strategy's own]",
        ),
    ] = None,
    num_settings: Annotated[str, typer.Option("--settings", metavar="N", help="How many settings are tried.")] = "32",
    seeds: Annotated[str, typer.Option(metavar="N", help="Seeds per setting, by which one is chosen.")] = "3",
    test_seeds: Annotated[str, typer.Option(metavar="N", help="Further seeds, on which it is reported.")] = "10",
    steps: Steps = None,
    generations: Annotated[str | None, typer.Option(metavar="N", help="Budget of a run in generations.")] = None,
    sampler: Annotated[str, typer.Option(metavar="NAME", help="sobol, random or grid.")] = "sobol",
    halving: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="Keep the best 1/N of the settings in each of two shorter rounds.  [default: no rounds]"
        ),
    ] = None,
    key: Key = None,
    settings: Set = None,
    problem_settings: SetProblem = None,
    out: Annotated[
        pathlib.Path,
        typer.Option(metavar="FOLDER", help="Folder for results and figure. What is finished there is reused."),
    ] = pathlib.Path("sweep"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute all runs, also those that are finished.")] = False,
    accept_versions: Versions = False,
    cache: Cache = True,
) -> None:
    """Search for good settings of a strategy.

    Prints the best settings, and the score of the best one on seeds that played no part in the choice.
    """
    _keep_programs(cache)
    _check_kind(out, "a sweep")
    found = zoo.sweep(
        _with_settings(_parse_spec(strategy, "strategy"), _parse_settings(settings)),
        _with_settings(_parse_spec(problem, "problem"), _parse_settings(problem_settings)),
        _parse_space(space),
        num_settings=_whole("--settings", num_settings, most=_MAX_SEEDS),
        num_seeds=_whole("--seeds", seeds, most=_MAX_SEEDS),
        num_test_seeds=_whole("--test-seeds", test_seeds, most=_MAX_SEEDS),
        num_steps=_whole("--steps", steps),
        num_generations=_whole("--generations", generations),
        sampler=sampler,
        halving=_whole("--halving", halving, least=2),
        key=_whole("--key", key, least=-_MAX) or 0,
        out=out,
        fresh=fresh,
        accept_versions=accept_versions,
    )
    _show_sweep(found, out)


@app.command("report")
def report_command(
    folder: Annotated[pathlib.Path, typer.Argument(metavar="FOLDER", help="Folder of a benchmark.")],
    file: Annotated[
        pathlib.Path | None,
        typer.Argument(metavar="[FILE]", help="File of the HTML report.  [default: report.html in the folder]"),
    ] = None,
    html: Annotated[
        bool, typer.Option("--html", help="Write the report as one HTML file with figures that can be zoomed.")
    ] = False,
) -> None:
    """Print the table of a saved benchmark.

    Also writes its report and its figures again, or with --html an HTML report in their place.
    """
    if file is not None and file.suffix != ".html":
        raise ValueError(f"FILE must end in .html, got {shown(str(file))}.")
    path = file or (folder / "report.html" if html else folder)
    with _naming(folder), _pointing_to(folder, "a benchmark"):
        if "a sweep" not in _kinds(folder):
            _show(zoo.Results.load(folder), folder, path)
        elif path == folder:
            _show_sweep(zoo.Sweep.load(folder), folder)
        else:
            raise ValueError(f"{folder} holds a sweep. Only a benchmark has an HTML report.")


@app.command("compare", epilog=_COMPARE_EXAMPLE)
def compare_command(
    folder: Annotated[pathlib.Path, typer.Argument(metavar="FOLDER", help="Folder of a benchmark.")],
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Strategy with which all others are compared.  [default: each is compared with each]"
        ),
    ] = None,
    correction: Annotated[
        str,
        typer.Option(metavar="NAME", help="How p values are corrected for their number: holm, fdr or none."),
    ] = "holm",
    test: Annotated[
        str, typer.Option(metavar="NAME", help="Test of the differences of paired seeds: wilcoxon or permutation.")
    ] = "wilcoxon",
    problem: Annotated[
        str | None, typer.Option("--problem", "-p", metavar="ID", help="Compare on this problem only.")
    ] = None,
) -> None:
    """Test which strategies of a saved benchmark differ.

    Prints differences with intervals, p values, and ranks over problems. Also writes a figure.
    """
    with _naming(folder), _pointing_to(folder, "a benchmark"):
        comparison = zoo.Results.load(folder).compare(
            baseline,
            correction=None if correction == "none" else correction,  # pyright: ignore[reportArgumentType]
            test=test,  # pyright: ignore[reportArgumentType]
            problem=problem,
        )
        _show_comparison(comparison, folder)


@app.command("tickets")
def tickets_command(
    strategy: Annotated[
        str, typer.Argument(metavar="STRATEGY", help="Id of the strategy that trains, such as snes, or JSON.")
    ],
    problem: Annotated[
        str,
        typer.Argument(metavar="PROBLEM", help="Id of a problem with a network, such as supervised/digits, or JSON."),
    ],
    criteria: Annotated[
        list[str] | None,
        typer.Option(
            "--criterion",
            "-c",
            metavar="NAME",
            help="snr, magnitude or random. May be repeated.  [default: all three]",
        ),
    ] = None,
    rounds: Annotated[str, typer.Option(metavar="N", help="Rounds of training.")] = "20",
    generations: Annotated[str, typer.Option(metavar="N", help="Generations per round.")] = "300",
    prune: Annotated[
        str, typer.Option(metavar="FRACTION", help="Fraction of the remaining weights to prune after each round.")
    ] = "0.2",
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Regular expression of leaves that are never pruned. May be repeated."),
    ] = None,
    weight_decay: Annotated[
        str, typer.Option(metavar="FRACTION", help="Fraction of the mean to subtract after each generation.")
    ] = "0.0",
    seeds: Annotated[str, typer.Option(metavar="N", help="Seeds per criterion.")] = "5",
    key: Key = None,
    settings: Set = None,
    problem_settings: SetProblem = None,
    out: Annotated[
        pathlib.Path,
        typer.Option(
            metavar="FOLDER", help="Folder for tickets and figures. Rounds that are finished there are reused."
        ),
    ] = pathlib.Path("tickets"),
    accept_versions: Versions = False,
    cache: Cache = True,
) -> None:
    """Find lottery tickets of a network.

    Trains, prunes and rewinds, round after round. Prints a table, and writes the tickets and two figures.
    """
    _keep_programs(cache)
    _check_kind(out, "lottery tickets")
    num_seeds = _whole("--seeds", seeds, most=_MAX_SEEDS)
    tickets = zoo.lottery_tickets(
        _with_settings(_parse_spec(strategy, "strategy"), _parse_settings(settings)),
        registry.given_problem(_parse_spec(problem, "problem"), _parse_settings(problem_settings)),
        _whole("--key", key, least=-_MAX) or 0,
        criteria=criteria or ("snr", "magnitude", "random"),
        num_seeds=num_seeds,
        num_rounds=_whole("--rounds", rounds),
        generations_per_round=_whole("--generations", generations),
        prune_fraction=_number("--prune", prune),
        exclude=tuple(exclude or ()),
        weight_decay=_number("--weight-decay", weight_decay),
        out=out,
        accept_versions=accept_versions,
    )
    headline, direction = tickets.metadata["headline"], "higher" if tickets.metadata["maximize"] else "lower"
    table = tickets.summary()
    table["kept"] = [f"{100 * kept:.3g} %" for kept in table["kept"]]
    table[tickets.criteria] = table[tickets.criteria].map("{:.4g}".format)
    show_table([table], title=f"{headline} ({direction} is better), mean over {num_seeds} seeds, by criterion")
    with _unless_read_only():
        for name, figure in (("ladder", tickets.plot()), ("layers", tickets.plot_layers())):
            write_file(out / f"{name}.png", functools.partial(figure.savefig, format="png", dpi=150))
    say("")
    say(f"tickets in {out}")
    say(f"figures {out / 'ladder.png'}, {out / 'layers.png'}")


def _stored_run(folder: pathlib.Path, budget: dict[str, Any]) -> tuple[dict[str, Any], pathlib.Path, dict[str, Any]]:
    """Returns the call of a saved run, the folder of its checkpoints, and its budget, updated by the one given."""
    call, checkpoints = load_call(folder)
    stored = call["budget"]
    if budget["num_steps"] is not None or budget["num_generations"] is not None:
        stored = {**stored, "num_steps": None, "num_generations": None}
    if call["has_solution"]:
        raise ValueError("This run began from a solution that was passed to it. Go on with zoo.run(..., solution=...).")
    changed = {name: value for name, value in budget.items() if value is not None}
    return call, checkpoints, {**stored, **changed}


def _show(results: "zoo.Results", folder: pathlib.Path, path: pathlib.Path) -> None:
    """Prints the tables and the failures of a benchmark, and writes its report to a path."""
    from zoo.reports.contents import describe_seconds
    from zoo.reports.tables import describe_few_seeds, describe_overshoot, format_ert, format_summary

    summary = results.summary()
    table = format_summary(summary)
    columns = [name for name in ("compile seconds", "seconds", "steps", "tuned") if name in table]
    frames = [table.drop(columns=columns[:number]) for number in range(len(columns) + 1)]
    headings = [f"{problem} ({metric})" for problem, metric in zip(table.problem, table.metric, strict=True)]
    left_out = show_table(frames, sections=headings, label="strategy")
    if "seconds" not in left_out:
        say("")
        say(describe_seconds(pair.info for pair in results.pairs))
    for sentence in (describe_overshoot(summary), describe_few_seeds(summary)):
        if sentence:
            say("")
            say(sentence)
    if len(results.runtimes):
        for times in format_ert(results.ert()):
            targets = list(times.columns[2:])
            # The hardest target and, as long as there is room, the easiest one are shown.
            order = [*targets[1:-1:2], *targets[2:-1:2], *targets[:1]]
            frames = [times.drop(columns=order[:number]) for number in range(len(targets))]
            left_out += show_table(
                frames[:4],
                frames[4:],
                title="expected running time to a target, in problem steps (seeds that reached it)",
                sections=list(times.problem),
                label="strategy",
            )
    for failure in results.failures.to_dict("records"):
        text = plain_text("{strategy} on {problem}: {error}".format(**failure))
        say(("failed:", "red"), f" {text}", to=ERR)
    report = None
    with _unless_read_only():
        report = results.report(path)
    if report is None:
        return
    say("")
    say(f"results in {folder}")
    say(f"report   {report}{' (it also has the columns that this terminal has no room for)' if left_out else ''}")
    if report.suffix == ".html":
        return
    say(f"curves   {', '.join(sorted(path.name for path in report.parent.glob('curves_*.png')))}")
    if len(results.runtimes):
        say("runtimes runtime_ecdf.png, data_profile.png")


def _show_comparison(comparison: "zoo.Comparison", folder: pathlib.Path) -> None:
    """Prints the tables of a comparison, and writes its figure."""
    from zoo.reports.tables import describe_ranks, format_comparison, format_ranks

    table = format_comparison(comparison)
    best = {name: "higher" if is_max else "lower" for name, is_max in comparison.facts["maximize"].items()}
    frames = [table.drop(columns=["95 % of P", "better", "P(better)"][:number]) for number in range(4)]
    left_out = show_table(
        frames,
        title=f"difference within seeds; {comparison.facts['test']} test of paired seeds",
        sections=[f"{name} ({best[name]} is better)" for name in table.problem],
        label="strategy",
    )
    ranks = format_ranks(comparison)
    show_table([ranks, ranks.drop(columns="95 % interval")], title="over all problems", label="strategy")
    say("")
    say(describe_ranks(comparison))
    if left_out:
        say(f"A wider terminal also shows {', '.join(dict.fromkeys(left_out))}.")
    with _unless_read_only():
        path = folder / "comparison.png"
        write_file(path, functools.partial(comparison.plot().savefig, format="png", dpi=120))
        say("")
        say(f"figure {path}")


def _show_sweep(found: "zoo.Sweep", folder: pathlib.Path) -> None:
    """Prints the best settings of a sweep, and writes its figure."""
    facts, names = found.metadata, list(found.settings[0])
    table = found.frame.head(10)
    intervals = [
        f"{row['score']:.4g}" + (f" ({row['low']:.3g} to {row['high']:.3g})" if math.isfinite(row["low"]) else "")
        for row in table.to_dict("records")
    ]
    columns = {
        name: [f"{value:.4g}" if isinstance(value, float) else str(value) for value in table[name]] for name in names
    }
    frame = table[[]].assign(rank=table["rank"].astype(str), **columns, tuning=intervals)
    direction = "higher" if facts["maximize"] else "lower"
    best = f", the best {len(table)} of {len(found.settings)} settings" if len(table) < len(found.settings) else ""
    title = f"{facts['headline']} ({direction} is better) on {facts['num_seeds']} tuning seeds{best}"
    shorter = [frame.drop(columns=names[: -1 - number]) for number in range(len(names))][::-1]
    show_table([frame, *shorter], title=title)
    say("")
    for line in found.summary():
        say(line)
    with _unless_read_only():
        write_file(folder / "sweep.png", functools.partial(found.plot().savefig, format="png", dpi=150))
    say("")
    say(f"sweep in {folder}, figure {folder / 'sweep.png'}")


def _keep_programs(cache: bool) -> None:
    if not cache:
        return
    try:
        zoo.use_compilation_cache()
    except ValueError as error:  # without a cache programs are compiled again, and nothing is lost
        say(str(error), to=ERR, style="dim")


def _mesh(devices: str | None) -> "Mesh | None":
    return None if devices is None else zoo.population_mesh(_whole("--devices", devices))


_KINDS = {
    "run.json": ("a run", "`zoo run --resume {folder}` prints its result (and finishes or repeats it if need be)"),
    f"{CHECKPOINTS}/call.json": ("a run", "`zoo run --resume {folder}` finishes it and prints its result"),
    "call.json": ("a run", "`zoo run --resume {folder}` finishes it and prints its result"),
    "benchmark.json": ("a benchmark", "`zoo report {folder}` prints its table"),
    "sweep.json": ("a sweep", "`zoo report {folder}` shows it"),
    "tickets.json": ("lottery tickets", "`zoo tickets STRATEGY PROBLEM --out {folder}` goes on with them"),
}
"""Files by which a folder is recognised: what the folder holds, and which command to use for that."""


def _kinds(folder: pathlib.Path) -> dict[str, str]:
    """Returns what a folder holds, each with a sentence about the command for it."""
    there = [kind for name, kind in _KINDS.items() if os.path.lexists(folder / name)]
    return {kind: command.format(folder=folder) for kind, command in reversed(there)}


@contextlib.contextmanager
def _pointing_to(folder: pathlib.Path, wanted: str) -> Iterator[None]:
    """Raises an error that says what the folder holds, if it does not hold what is wanted."""
    try:
        yield
    except FileNotFoundError as error:
        for kind, command in _kinds(folder).items():
            if kind != wanted:
                raise ValueError(f"{folder} holds {kind}, not {wanted}: {command}.") from error
        raise


def _check_kind(folder: pathlib.Path | None, wanted: str) -> None:
    """Raises a `ValueError` if an output folder already holds results of another kind."""
    kinds = {} if folder is None else _kinds(folder)
    if kinds and wanted not in kinds:
        kind, command = next(iter(kinds.items()))
        raise ValueError(f"--out {folder}: the folder holds {kind} ({command}). Choose another folder for {wanted}.")


def _whole(option: str, text: str | None, *, least: int = 1, most: int = _MAX) -> Any:
    """Returns the whole number that an option was given, such as 20000 or 2e4, or `None` if it was not given.

    Raises:
        ValueError: If the text is not a whole number, or is out of bounds.
    """
    if text is None:
        return None
    try:
        value = int(text)
    except ValueError:
        value = float(text) if _is_float(text) else math.nan  # 2e4
    if value != value or value in (math.inf, -math.inf) or value != int(value):
        raise ValueError(f"{option} takes a whole number such as 20000 or 2e4, got {shown(text)}.")
    if value < least:
        raise ValueError(f"{option} must be at least {least}, got {shown(text)}.")
    if value > most:
        raise ValueError(f"{option} must be at most {most}, got {shown(text)}.")
    return int(value)


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(option: str, text: str) -> float:
    if not _is_float(text):
        raise ValueError(f"{option} takes a number such as 0.1, got {shown(text)}.")
    return float(text)


def _parse_spec(text: str, kind: str) -> Any:
    """Returns an id unchanged, and reads JSON of an id and settings, such as `{"id": "cma_es", "sigma": 0.5}`."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"A {kind} that begins with {{ must be JSON of its id and settings, such as "
            f'{{"id": "cma_es", "sigma": 0.5}}, got {text[:200]!r}: {error}.'
        ) from None


def _parse_specs(texts: list[str], kind: str) -> dict[str, Any]:
    """Returns ids, and dictionaries read from JSON, by their labels."""
    specs: dict[str, Any] = {}
    for spec in (_parse_spec(text, kind) for text in texts):
        label = label_of(spec)
        if label in specs:
            raise ValueError(f"Two {kind} entries have the label {label!r}.")
        specs[label] = spec
    return specs


def _label(spec: Any, settings: dict[str, Any]) -> str:
    """Returns the label of an id, or the label of a dictionary with all its settings."""
    return label_of({**spec, **settings} if isinstance(spec, dict) else spec)


def _with_settings(spec: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns a strategy or a problem as a dictionary of its id and settings."""
    return {**(spec if isinstance(spec, dict) else {"id": spec}), **settings}


def _parse_settings(settings: list[str] | None) -> dict[str, Any]:
    return dict(_parse_setting(setting) for setting in settings or [])


def _parse_setting(setting: str) -> tuple[str, Any]:
    name, equals, text = setting.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"A setting is given as name=value, for example sigma=0.1, got {setting!r}.")
    try:
        with warnings.catch_warnings(action="ignore"):  # Python's warnings about the syntax of the text
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # the last two come from deep nesting
        value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
        if name.strip() == "shaping":  # it has a value "none"
            value = text
    if name.strip() in ("id", "problem"):
        raise ValueError(f"{setting}: {name.strip()!r} is not a setting, but an argument of its own.")
    return name.strip(), value


def _parse_space(space: list[str] | None) -> dict[str, Any] | None:
    """Parses `name=a,b,c` and `name=log_uniform(0.01, 1)`. Without a space, the strategy's own is searched."""
    if not space:
        return None
    names = [entry.partition("=")[0].strip() for entry in space]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"--space gives {min(twice)} twice. Give all its values at once, as in {min(twice)}=a,b.")
    return {name: _parse_values(entry) for name, entry in zip(names, space, strict=True)}


def _parse_values(entry: str) -> Any:
    name, equals, text = entry.partition("=")
    if not equals or not name.strip() or not text.strip():
        raise ValueError(f"--space takes name=values, for example optimizer=adam,sgd, got {shown(entry)}.")
    call = re.fullmatch(r"\s*(uniform|log_uniform|times|integers)\((.*)\)\s*", text)
    if call is None and (other := re.match(r"\s*([A-Za-z_]\w*)\(", text)):
        raise ValueError(
            f"--space {entry}: there is no distribution {other[1]!r}. There are uniform(LOW, HIGH), "
            "log_uniform(LOW, HIGH), times(LOW, HIGH) and integers(LOW, HIGH)."
        )
    if call is None:
        return [_parse_setting(f"{name}={each.strip()}")[1] for each in text.split(",")]
    arguments, options = [], {}
    for part in call[2].split(","):
        option, is_named, value = part.rpartition("=")
        parsed = _parse_setting(f"{name}={value.strip()}")[1]
        if is_named:
            options[option.strip()] = parsed
        else:
            arguments.append(parsed)
    try:
        return getattr(zoo.space, call[1])(*arguments, **options)
    except TypeError as error:
        raise ValueError(f"--space {entry}: {call[1]} takes LOW and HIGH, two numbers. ({error})") from None
    except ValueError as error:
        raise ValueError(f"--space {entry}: {error}") from None


def _by_label(settings: list[str] | None, labels: dict[str, Any], option: str, kind: str) -> dict[Any, dict[str, Any]]:
    """Parses `label:name=value`. Without a label, a setting goes to every strategy or problem that has it."""
    by_label: dict[Any, dict[str, Any]] = {}
    for setting in settings or []:
        targets: Iterable[str] = [label for label in labels if setting.startswith(f"{label}:")][:1]
        label, colon, _ = setting.partition("=")[0].rpartition(":")
        if colon and not targets:
            raise ValueError(f"{option} {setting}: {label!r} is not in this benchmark ({', '.join(labels)}).")
        name, value = _parse_setting(setting.removeprefix("".join(f"{label}:" for label in targets)))
        if not targets:
            # If none has it, all get it, so that the error lists the valid settings.
            targets = [each for each, spec in labels.items() if name in valid_settings(spec, kind)] or labels
        for each in targets:
            by_label.setdefault(each, {})[name] = value
    return by_label


def _parse_steps(steps: list[str] | None, problems: list[str]) -> dict[str, int] | None:
    """Returns the budget of each problem. An entry is `number`, for all problems, or `problem=number`."""
    if not steps:
        return None
    by_problem: dict[str, int] = {}
    for entry in steps:
        label, equals, number = entry.rpartition("=")
        value = _whole(f"--steps for {label}" if equals else "--steps", number)
        for each in [label] if equals else problems:
            by_problem[each] = value
    return by_problem


if __name__ == "__main__":
    sys.exit(main())
