"""The command line: `zoo list`, `zoo run`, `zoo benchmark`, `zoo report`, `zoo tickets`."""

import ast
import contextlib
import functools
import json
import os
import pathlib
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import rich.console
import rich.markup
import rich.table
import typer
import typer.core
from rich.markup import escape

import zoo
from zoo import registry
from zoo._version import __version__
from zoo.loop.call import CHECKPOINTS, load_call, make_call
from zoo.loop.files import below, write_file
from zoo.loop.text import plain_text
from zoo.registry import catalogue, label_of, valid_settings

if TYPE_CHECKING:
    import pandas as pd
    from jax.sharding import Mesh

_IN_THE_INPUT = (ValueError, TypeError, OSError, ImportError, LookupError, OverflowError, MemoryError)
"""What is wrong with what was asked for, or with where it is to be read or written; all else is a mistake of ours."""
_MAX_MESSAGE = 1000  # characters; a value that was given may have any number of them


class _Commands(typer.core.TyperGroup):
    """The commands: whatever ends one of them is a line and an exit code."""

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
        """Runs a command whose arguments are read."""
        with _clear_errors():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    help="A zoo of evolution strategies in JAX.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In a log or a file nothing is wrapped or cut off for want of a terminal's width.
_out = rich.console.Console(width=None if sys.stdout is not None and sys.stdout.isatty() else 200)
_err = rich.console.Console(stderr=True)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of the strategy, as name=value; may be repeated."),
]
SetProblem = Annotated[
    list[str] | None,
    typer.Option("--set-problem", help="A setting of the problem, as name=value; may be repeated."),
]
_MAX = 2**63 - 1  # of whole numbers
_MAX_SEEDS = 1_000_000  # which are run at once
Seed = Annotated[int, typer.Option("--key", help="Seed of all randomness.", min=-_MAX, max=_MAX)]
Versions = Annotated[
    bool,
    typer.Option("--accept-versions", help="Use what is there also if another version of the zoo or of JAX made it."),
]
Cache = Annotated[bool, typer.Option("--cache/--no-cache", help="Keep compiled programs for the next call.")]
Devices = Annotated[
    int | None, typer.Option(max=_MAX, help="Split each population over so many devices. Default: use one.")
]


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line: bad input ends it with exit code 2 and one line, all failed pairs with 1."""
    try:
        app(args)
    finally:
        _let_go_of_output()


def _let_go_of_output() -> None:
    """Drops what cannot be written, which Python would try once more at its end, with a traceback."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _clear_errors() -> Iterator[None]:
    """Turns errors into one line, and exit code 2 for those about input."""
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
        _err.print(f"[bold red]error:[/] {escape(_message(error))}", soft_wrap=True, highlight=False)
        raise typer.Exit(code) from None
    except KeyboardInterrupt:
        _err.print("interrupted; what was finished is saved")
        raise typer.Exit(130) from None


def _show_warning(message: Warning | str, *_: Any) -> None:
    """Shows a warning without the line of code that it came from."""
    _err.print(f"[yellow]warning:[/] {escape(_short(message))}", soft_wrap=True, highlight=False)


def _message(error: Any) -> str:
    """Returns what an error says."""
    if hasattr(error, "format_message"):  # of the options
        message = error.format_message()
    elif isinstance(error, KeyError) and error.args:
        message = error.args[0]
    elif isinstance(error, _IN_THE_INPUT) and str(error):
        message = error
    else:
        message = f"{type(error).__name__}: {error}. ZOO_TRACEBACK=1 shows where."
    return _short(message)


def _short(message: object) -> str:
    """Returns a message on one line and in no more words than somebody will read."""
    text = plain_text(message)
    half = _MAX_MESSAGE // 2
    return text if len(text) <= _MAX_MESSAGE else f"{text[:half]} ... {text[-half:]}"


@contextlib.contextmanager
def _naming(folder: pathlib.Path) -> Iterator[None]:
    """Sees to it that errors about what a folder holds name it."""
    try:
        yield
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if str(folder) in str(error):
            raise
        kind = ValueError if isinstance(error, _IN_THE_INPUT) else RuntimeError
        raise kind(f"{folder}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _unless_read_only() -> Iterator[None]:
    """Says that nothing was written where nothing can be: what is there already has been shown."""
    try:
        yield
    except OSError as error:
        _err.print(f"[dim]not written: {escape(plain_text(error))}[/]", soft_wrap=True, highlight=False)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        _out.print(f"es-zoo {__version__}")
        raise typer.Exit


@app.command("list")
def list_command() -> None:
    """List strategies and problems."""
    for kind in ("strategy", "problem"):
        table = rich.table.Table(box=None, header_style="bold", pad_edge=False)
        table.add_column(kind, no_wrap=True)
        table.add_column("what it is")
        for id, summary, names in catalogue(kind):
            table.add_row(id, rich.markup.escape(summary))  # [f] is no markup
            if names:
                table.add_row("", f"[dim]{', '.join(names)}[/]")
        _out.print(table)
        _out.print()


@app.command("describe")
def describe_command(
    id: Annotated[str, typer.Argument(help="Id of a strategy or a problem, such as open_es.")],
) -> None:
    """Say what a strategy or a problem is, and what its settings mean."""
    _out.print(zoo.describe(id, min(_out.width, 100)), highlight=False, markup=False, soft_wrap=True)


@app.command("run")
def run_command(
    strategy: Annotated[str | None, typer.Argument(help="Id of a strategy, such as open_es, or JSON.")] = None,
    problem: Annotated[str | None, typer.Argument(help="Id of a problem, such as rl/CartPole-v1, or JSON.")] = None,
    steps: Annotated[int | None, typer.Option(help="Budget in problem steps.", max=_MAX)] = None,
    generations: Annotated[int | None, typer.Option(help="Budget in generations.", max=_MAX)] = None,
    target: Annotated[float | None, typer.Option(help="Stop at this headline score.")] = None,
    converged: Annotated[bool, typer.Option("--converged", help="Stop when the search has converged.")] = False,
    key: Annotated[
        int | None, typer.Option("--key", help="Seed of all randomness. Default: 0.", min=-_MAX, max=_MAX)
    ] = None,
    settings: Set = None,
    problem_settings: SetProblem = None,
    out: Annotated[
        pathlib.Path | None,
        typer.Option(help="Folder for the result and its checkpoints; a run interrupted there resumes."),
    ] = None,
    resume: Annotated[
        pathlib.Path | None,
        typer.Option(help="Folder of a run to repeat or to go on with, by itself or to another budget."),
    ] = None,
    accept_versions: Versions = False,
    devices: Devices = None,
    cache: Cache = True,
) -> None:
    """Run one strategy on one problem."""
    _keep_programs(cache)
    stop = zoo.Converged() if converged else None
    budget: dict[str, Any] = {"num_steps": steps, "num_generations": generations, "target": target, "stop": stop}
    if resume is not None:
        given = {"strategy": strategy, "problem": problem, "--key": key, "--out": out}
        given |= {"--set": settings, "--set-problem": problem_settings}
        if any(value is not None for value in given.values()):
            names = ", ".join(name for name, value in given.items() if value is not None)
            raise ValueError(f"--resume takes a run as it is in its folder, so leave out {names}.")
        with _naming(resume):
            call, checkpoints, budget = _stored_run(resume, budget)
            made_strategy, made, made_key = make_call(call, None, None)
        strategy, problem, out = call["strategy"]["id"], call["problem"]["id"], resume
    elif strategy is None or problem is None:
        raise ValueError("run needs a strategy and a problem, or --resume and the folder of a run.")
    else:
        of_strategy, of_problem = _parse_settings(settings), _parse_settings(problem_settings)
        given_strategy, given_problem = _parse_spec(strategy, "strategy"), _parse_spec(problem, "problem")
        made = registry.given_problem(given_problem, of_problem)
        made_strategy = registry.given_strategy(given_strategy, of_strategy, "run", made)
        strategy, problem = _label(given_strategy, of_strategy), _label(given_problem, of_problem)
        made_key, checkpoints = key or 0, None if out is None else below(out, CHECKPOINTS)
    result = zoo.run(
        made_strategy,
        made,
        made_key,
        **budget,
        checkpoint=checkpoints,
        accept_versions=accept_versions,
        progress=True,
        mesh=_mesh(devices),
    )
    is_saved = False
    if out is not None:
        with _unless_read_only():
            result.save(out)
            is_saved = True
    metrics = ", ".join(f"{name} {value:.6g}" for name, value in result.metrics.items())
    _out.print(f"[bold]{strategy}[/] on [bold]{problem}[/]: {metrics}", highlight=False)
    _out.print(
        f"best fitness of a member {result.best_fitness:.6g}; {result.num_generations} generations, "
        f"{result.num_steps:,} steps, {result.seconds:.2f} s (and {result.compile_seconds:.1f} s to compile); "
        f"stopped by {result.stopped_by}",
        highlight=False,
    )
    if result.overshoot:
        _out.print(
            f"a last generation of {result.overshoot:,} steps did not fit in the budget and was dropped",
            highlight=False,
        )
    if is_saved:
        _out.print(f"saved in {out}", highlight=False)


@app.command("benchmark")
def benchmark_command(
    strategies: Annotated[
        list[str], typer.Option("--strategy", "-s", help="Id of a strategy, or JSON; repeat for several.")
    ],
    problems: Annotated[
        list[str], typer.Option("--problem", "-p", help="Id of a problem, or JSON; repeat for several.")
    ],
    seeds: Annotated[int, typer.Option(help="Seeds per pair.", max=_MAX_SEEDS)] = 5,
    steps: Annotated[
        list[str] | None,
        typer.Option(help="Budget in problem steps: a number, or problem=number; may be repeated."),
    ] = None,
    key: Seed = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of every strategy that has it, name=value; or strategy:name=value."),
    ] = None,
    problem_settings: Annotated[
        list[str] | None,
        typer.Option("--set-problem", help="A setting of one problem, as problem:name=value."),
    ] = None,
    out: Annotated[
        pathlib.Path,
        typer.Option(help="Folder for results, report and curves; finished pairs there are not rerun."),
    ] = pathlib.Path("results"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute all pairs, also those that are there.")] = False,
    accept_versions: Versions = False,
    executor: Annotated[
        str, typer.Option(help="local: pair by pair, in this process; ray: at the same time, by Ray's workers.")
    ] = "local",
    devices: Devices = None,
    cache: Cache = True,
) -> None:
    """Compare strategies on problems; ends with a table, a report and learning curves."""
    _keep_programs(cache)
    by_label = _parse_specs(strategies, "strategy"), _parse_specs(problems, "problem")
    results = zoo.benchmark(
        *by_label,
        num_seeds=seeds,
        num_steps=_parse_steps(steps, list(by_label[1])),
        key=key,
        strategy_settings=_by_label(settings, by_label[0], "--set", "strategy"),
        problem_settings=_by_label(problem_settings, by_label[1], "--set-problem", "problem"),
        out=out,
        fresh=fresh,
        accept_versions=accept_versions,
        executor=executor,
        mesh=_mesh(devices),
    )
    _show(results, out)
    if len(results.failures) == len(results.pairs):
        raise typer.Exit(1)


@app.command("report")
def report_command(folder: Annotated[pathlib.Path, typer.Argument(help="Folder of a benchmark.")]) -> None:
    """Print the table of a saved benchmark and write its report again."""
    with _naming(folder):
        _show(zoo.Results.load(folder), folder)


@app.command("tickets")
def tickets_command(
    strategy: Annotated[str, typer.Argument(help="Id of the strategy that trains, such as snes.")],
    problem: Annotated[str, typer.Argument(help="Id of a problem with a network, such as supervised/digits.")],
    criteria: Annotated[
        list[str] | None,
        typer.Option("--criterion", "-c", help="snr, magnitude or random; may be repeated. Default: all three."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of training.", max=_MAX)] = 20,
    generations: Annotated[int, typer.Option(help="Generations per round.", max=_MAX)] = 300,
    prune: Annotated[float, typer.Option(help="Fraction of what is left that goes between two rounds.")] = 0.2,
    exclude: Annotated[
        list[str] | None, typer.Option(help="A regular expression for leaves never to prune; may be repeated.")
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="Fraction of the mean taken off after each generation.")] = 0.0,
    seeds: Annotated[int, typer.Option(help="Seeds per criterion.", max=_MAX_SEEDS)] = 5,
    key: Seed = 0,
    settings: Set = None,
    problem_settings: SetProblem = None,
    out: Annotated[
        pathlib.Path,
        typer.Option(help="Folder for tickets and figures; rounds that are finished there are not run again."),
    ] = pathlib.Path("tickets"),
    accept_versions: Versions = False,
    cache: Cache = True,
) -> None:
    """Find lottery tickets: train, prune, rewind, round by round; ends with a table and two figures."""
    _keep_programs(cache)
    tickets = zoo.lottery_tickets(
        _with_settings(_parse_spec(strategy, "strategy"), _parse_settings(settings)),
        registry.given_problem(_parse_spec(problem, "problem"), _parse_settings(problem_settings)),
        key,
        criteria=criteria or ("snr", "magnitude", "random"),
        num_seeds=seeds,
        num_rounds=rounds,
        generations_per_round=generations,
        prune_fraction=prune,
        exclude=tuple(exclude or ()),
        weight_decay=weight_decay,
        out=out,
        accept_versions=accept_versions,
    )
    headline, direction = tickets.metadata["headline"], "higher" if tickets.metadata["maximize"] else "lower"
    table = tickets.summary()
    table["kept"] = [f"{100 * kept:.3g} %" for kept in table["kept"]]
    table[tickets.criteria] = table[tickets.criteria].map("{:.4g}".format)
    _print_table(table, title=f"{headline} ({direction} is better), mean over {seeds} seeds, by criterion")
    with _unless_read_only():
        for name, figure in (("ladder", tickets.plot()), ("layers", tickets.plot_layers())):
            write_file(out / f"{name}.png", functools.partial(figure.savefig, format="png", dpi=150))
    _out.print(f"\ntickets in {out}\nfigures {out / 'ladder.png'}, {out / 'layers.png'}", highlight=False)


def _stored_run(folder: pathlib.Path, budget: dict[str, Any]) -> tuple[dict[str, Any], pathlib.Path, dict[str, Any]]:
    """Returns the call of a saved run, the folder of its checkpoints, and its budget with what is given instead."""
    call, checkpoints = load_call(folder)
    stored = call["budget"]
    if budget["num_steps"] is not None or budget["num_generations"] is not None:
        stored = {**stored, "num_steps": None, "num_generations": None}
    if call["has_solution"]:
        raise ValueError("This run began from a solution that was passed to it: go on with zoo.run(..., solution=...).")
    changed = {name: value for name, value in budget.items() if value is not None}
    return call, checkpoints, {**stored, **changed}


def _show(results: "zoo.Results", folder: pathlib.Path) -> None:
    from zoo.benchmarking.tables import describe_overshoot, format_ert, format_summary

    summary = results.summary()
    _print_table(format_summary(summary))
    if overshoot := describe_overshoot(summary):
        _out.print(f"\n{overshoot}", highlight=False)
    if len(results.runtimes):
        for table in format_ert(results.ert()):
            _print_table(table, title="expected running time to a target, in problem steps (seeds that reached it)")
    for failure in results.failures.to_dict("records"):
        _err.print(
            f"[red]failed:[/] {escape(plain_text('{strategy} on {problem}: {error}'.format(**failure)))}",
            soft_wrap=True,
        )
    report = None
    with _unless_read_only():
        report = results.report(folder)
    if report is None:
        return
    pictures = ", ".join(sorted(path.name for path in report.parent.glob("curves_*.png")))
    if len(results.runtimes):
        pictures += "\nruntimes runtime_ecdf.png, data_profile.png"
    _out.print(f"\nresults in {folder}\nreport   {report}\ncurves   {pictures}", highlight=False, soft_wrap=True)


def _print_table(frame: "pd.DataFrame", title: str | None = None) -> None:
    """Prints a frame whose first column is the problem, said once for all its rows."""
    if title is not None:
        _out.print(f"\n{escape(plain_text(title))}", style="bold", highlight=False)
    table = rich.table.Table(box=None, header_style="bold", pad_edge=False)
    for column in frame.columns:
        justify = "left" if column in ("problem", "strategy", "metric") else "right"
        table.add_column(escape(plain_text(column)), justify=justify, overflow="fold")
    previous = None
    for row in frame.itertuples(index=False):
        cells = [escape(plain_text(cell)) for cell in row]
        if previous is not None and cells[0] != previous:
            table.add_section()
        cells[0], previous = ("" if cells[0] == previous else cells[0]), cells[0]
        table.add_row(*cells)
    _out.print(table)


def _keep_programs(cache: bool) -> None:
    if not cache:
        return
    try:
        zoo.use_compilation_cache()
    except ValueError as error:  # which costs time and nothing else
        _err.print(f"[dim]{escape(str(error))}[/]", soft_wrap=True, highlight=False)


def _mesh(devices: int | None) -> "Mesh | None":
    return None if devices is None else zoo.population_mesh(devices)


def _parse_spec(text: str, kind: str) -> Any:
    """Returns an id as it is, and an id with settings from JSON: `{"id": "cma_es", "sigma": 0.5}`."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"A {kind} that begins with {{ is JSON of its id and settings, such as "
            f'{{"id": "cma_es", "sigma": 0.5}}, got {text[:200]!r}: {error}.'
        ) from None


def _parse_specs(texts: list[str], kind: str) -> dict[str, Any]:
    """Returns ids, and ids with settings from JSON, by their labels."""
    specs: dict[str, Any] = {}
    for spec in (_parse_spec(text, kind) for text in texts):
        label = label_of(spec)
        if label in specs:
            raise ValueError(f"Two {kind} entries have the label {label!r}.")
        specs[label] = spec
    return specs


def _label(spec: Any, settings: dict[str, Any]) -> str:
    """Returns an id, or of JSON the id with all settings."""
    return label_of({**spec, **settings} if isinstance(spec, dict) else spec)


def _with_settings(spec: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns a strategy as a dictionary of its id and settings."""
    return {**(spec if isinstance(spec, dict) else {"id": spec}), **settings}


def _parse_settings(settings: list[str] | None) -> dict[str, Any]:
    return dict(_parse_setting(setting) for setting in settings or [])


def _parse_setting(setting: str) -> tuple[str, Any]:
    name, equals, text = setting.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"A setting is given as name=value, for example sigma=0.1; got {setting!r}.")
    try:
        with warnings.catch_warnings(action="ignore"):  # of Python's, about how text is written
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # the last ones of deep nesting
        value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
        if name.strip() == "shaping":  # where "none" is a value of its own
            value = text
    if name.strip() in ("id", "problem"):
        raise ValueError(f"{setting}: {name.strip()!r} is no setting, but an argument of its own.")
    return name.strip(), value


def _by_label(settings: list[str] | None, labels: dict[str, Any], option: str, kind: str) -> dict[Any, dict[str, Any]]:
    """Parses `label:name=value`; without a label, a setting goes to every label that has it."""
    by_label: dict[Any, dict[str, Any]] = {}
    for setting in settings or []:
        targets: Iterable[str] = [label for label in labels if setting.startswith(f"{label}:")][:1]
        label, colon, _ = setting.partition("=")[0].rpartition(":")
        if colon and not targets:
            raise ValueError(f"{option} {setting}: {label!r} is not in this benchmark ({', '.join(labels)}).")
        name, value = _parse_setting(setting.removeprefix("".join(f"{label}:" for label in targets)))
        if not targets:
            # If nobody has it, all get it: the error then lists what there is.
            targets = [each for each, spec in labels.items() if name in valid_settings(spec, kind)] or labels
        for each in targets:
            by_label.setdefault(each, {})[name] = value
    return by_label


def _parse_steps(steps: list[str] | None, problems: list[str]) -> int | dict[str, int] | None:
    if not steps:
        return None
    by_problem: dict[str, int] = {}
    for entry in steps:
        label, equals, number = entry.rpartition("=")
        try:
            value = float(number.replace("_", ""))
            if not value.is_integer() or value > _MAX:
                raise ValueError
        except (ValueError, OverflowError):
            raise ValueError(f"--steps takes a number of steps, or problem=number; got {entry!r}.") from None
        for each in [label] if equals else problems:
            by_problem[each] = int(value)
    return by_problem


if __name__ == "__main__":
    sys.exit(main())
