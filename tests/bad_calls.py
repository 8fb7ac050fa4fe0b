"""Bad calls, made from signatures: every parameter of each public function and class gets every kind of bad value.

A call is *refused* if es-zoo raises one line that names the parameter before anything is compiled. It is *taken* if it
gets as far as compiling. Anything else is a *finding*, and so is a value that is taken although the parameter has no
use for it. `python -m tests.bad_calls` prints the counts.
"""

import collections
import contextlib
import dataclasses
import functools
import inspect
import math
import os
import pathlib
import re
import tempfile
import time
import traceback
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np

import zoo
from tests.benchmarking.test_results import make_pair, make_results
from tests.the_loop import IDS
from zoo.loop.programs import Program


class Thing:
    """A value without a use for any parameter, except for settings that are leaves, where JAX puts such objects."""


KINDS = {
    "text": "?",
    "object": Thing(),
    "nan": math.nan,
    "negative": -1,
    "fraction": 0.5,
    "huge": 10**30,
    "empty text": "",
    "empty tuple": (),
    "none": None,
}
START = jnp.zeros(3)


def sphere(x):
    return jnp.sum(x**2)


PROBLEM = zoo.from_function(sphere, START)
SNES = zoo.make_strategy("snes", population_size=4)
RESULTS = make_results(*(make_pair(name, "p", np.arange(8.0)[:, None]) for name in ("snes", "cma_es")), num_seeds=8)
TICKET = zoo.Ticket(mask=np.ones(3, bool), solution=START, kept=1.0)


class CompilesError(Exception):
    """Raised where a call that was not refused would compile a program."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A function or a class, and valid arguments for it."""

    name: str
    call: Callable[..., Any]
    valid: dict[str, Any] = dataclasses.field(default_factory=dict)
    signature: Any = None  # where the parameters come from; by default `call`
    only: tuple[str, ...] = ()  # the parameters to try; empty: all

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        parameters = inspect.signature(self.signature or self.call).parameters
        skipped = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        return {
            n: p
            for n, p in parameters.items()
            if p.kind not in skipped and n != "space" and n in (self.only or parameters)
        }


@dataclasses.dataclass(frozen=True)
class Outcome:
    entry: str
    parameter: str
    kind: str
    verdict: str  # "refused", "taken" or "finding"
    seconds: float
    message: str = ""

    def __str__(self) -> str:
        return f"{self.entry}({self.parameter}={self.kind}): {self.message}"


def functions() -> list[Entry]:
    """Returns the public functions that start something."""
    frame = zoo.interpolate(PROBLEM, START, START, num_points=2)
    folder = pathlib.Path(tempfile.gettempdir()) / "no-such-folder"
    two = {"strategy": "snes", "problem": PROBLEM}
    minimized = {"fn": sphere, "solution": START, "strategy": "snes", "num_generations": 1}
    benchmarked = {"strategies": [SNES], "problems": [PROBLEM], "num_steps": 8, "progress": False}
    laddered = {"strategy": "snes", "problem": PROBLEM, "num_seeds": 1, "num_rounds": 1, "progress": False}
    measured = {"strategy": "open_es", "problem": PROBLEM, "num_samples": 2, "num_exact": 0, "progress": False}
    return [
        Entry("run", zoo.run, {**two, "num_generations": 1}),
        Entry("minimize", zoo.minimize, minimized),
        Entry("benchmark", zoo.benchmark, benchmarked),
        Entry("Optimizer", zoo.Optimizer, {"strategy": "snes", "solution": np.zeros(3, np.float32)}),
        Entry("estimator_statistics", zoo.estimator_statistics, measured),
        Entry("interpolate", zoo.interpolate, {"problem": PROBLEM, "one": START, "other": START}),
        Entry("flatness", zoo.flatness, {"problem": PROBLEM, "solution": START, "num_samples": 1}),
        Entry("barrier", zoo.barrier, {"frame": frame, "metric": "fitness", "maximize": False}),
        Entry("prune_at_init", zoo.prune_at_init, {"problem": PROBLEM, "kept": 0.5, "criterion": "magnitude"}),
        Entry("lottery_tickets", zoo.lottery_tickets, laddered),
        Entry("load_run", zoo.load_run, {"folder": folder}, only=("folder",)),
        Entry("load_ticket", zoo.load_ticket, {"folder": folder, "problem": PROBLEM}),
        Entry("load_tickets", zoo.load_tickets, {"folder": folder, "problem": PROBLEM}),
        Entry("smooth", zoo.smooth, {"fn": sphere, "sigma": 0.1}),
        Entry("from_function", zoo.from_function, {"fn": sphere, "solution": START}),
        Entry("from_python", zoo.from_python, {"fn": sphere, "solution": START}),
        Entry("from_numpy", zoo.from_numpy, {"fn": sphere}),
        Entry("map_members", zoo.map_members, {"fn": sphere, "population": jnp.zeros((2, 3))}),
        Entry("population_mesh", zoo.population_mesh),
        Entry("make_strategy", zoo.make_strategy, {"id": "snes"}),
        Entry("make_problem", zoo.make_problem, {"id": "blackbox/sphere"}),
        Entry("Results.compare", RESULTS.compare),
        Entry("Ticket.train", TICKET.train, {**two, "num_generations": 1}),
        Entry("Ticket.evaluate", TICKET.evaluate, {"problem": PROBLEM}),
        Entry("Ticket.permuted", TICKET.permuted),
        Entry("Ticket.reinitialized", TICKET.reinitialized, {"problem": PROBLEM}),
    ]


def constructors() -> Iterator[Entry]:
    """Yields the strategies and the problems of the registry."""
    for id in STRATEGIES:
        yield Entry(id, functools.partial(zoo.make_strategy, id), signature=zoo.registry._strategies.factory(id)[0])
    for id in PROBLEMS:
        factory = zoo.registry._problems.factory(id)[0]
        yield Entry(id, functools.partial(zoo.make_problem, id), signature=factory)


STRATEGIES = (*IDS, "pycma", "evosax/SNES")
PROBLEMS = (
    "blackbox/sphere",
    "rl/CartPole-v1",
    "rl/gymnasium/CartPole-v1",
    "supervised/accuracy_pipeline",
    "supervised/digits",
    "unrolled/influence_balancing",
    "unrolled/learned_optimizer",
    "unrolled/lorenz",
    "unrolled/mlp_lr_schedule",
    "unrolled/toy_lr_schedule",
)  # the others need data that are not installed, and have the settings of digits


def outcomes(entries: list[Entry]) -> Iterator[Outcome]:
    """Yields the outcome of each call."""
    with stopped_before_compiling():
        for entry in entries:
            for name, parameter in entry.parameters.items():
                for kind in KINDS:
                    yield outcome(entry, parameter, kind, {**entry.valid, name: KINDS[kind]})


def outcome(entry: Entry, parameter: inspect.Parameter, kind: str, arguments: dict[str, Any]) -> Outcome:
    before = time.perf_counter()
    verdict, message = "taken", ""
    try:
        entry.call(**arguments)
    except CompilesError:
        pass
    except Exception as error:
        message = complaint(error, parameter.name)
        verdict = "finding" if message else "refused"
    seconds = time.perf_counter() - before
    if verdict == "taken" and not has_use(entry.name, parameter, kind):
        verdict, message = "finding", "taken"
    return Outcome(entry.name, parameter.name, kind, verdict, seconds, message)


@contextlib.contextmanager
def stopped_before_compiling() -> Iterator[None]:
    """Stops calls where they would compile their main program. Programs are traced first, because tracing may fail."""

    def choose(self, *args, **kwargs):
        self._plain.trace(*args, **kwargs)
        raise CompilesError

    def stop(*args, **kwargs):
        raise CompilesError

    others = ("landscape._score_between", "landscape._score_around", "at_init._prune", "tickets._score")
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(Program, "choose", choose))
        for name in others:
            stack.enter_context(mock.patch(f"zoo.sparsity.{name}", stop))
        yield


ROOT = pathlib.Path(__file__).parents[1]
ERRORS = (ValueError, TypeError, FileNotFoundError, ModuleNotFoundError)


def complaint(error: Exception, parameter: str) -> str:
    """Returns what is wrong with an error, or an empty text."""
    message = str(error)
    text = f"{type(error).__name__}: {message}"[:150]
    if not isinstance(error, ERRORS):
        return f"no ValueError or TypeError but {text}"
    if "\n" in message:
        return f"more than one line: {text!r}"
    where = pathlib.Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    if not any(where.is_relative_to(ROOT / room) for room in ("zoo", "strategies", "problems")):
        return f"raised by {'/'.join(where.parts[-2:])}: {text}"
    if not any(re.search(rf"\b{name}\b", message) for name in (parameter, *NAMED.get(parameter, ()))):
        return f"does not name it: {text}"
    return ""


# Words that a message may use in place of a parameter's name.
NAMED = {
    "strategy": ("strategy id", "zoo.Strategy"),
    "problem": ("problem id", "zoo.Problem"),
    "id": ("strategy", "problem"),
    "fn": ("function",),
    "solution": ("Solutions",),
    "one": ("Solutions",),  # with the path of a leaf
    "other": ("Solutions",),
    "strategies": ("strategy",),
    "problems": ("problem",),
    "base": ("strategy",),
    "task": ("problem",),
    "criteria": ("criterion", "score"),
    "num_rounds": ("num_generations",),
    "held_out": ("hold_out",),
    "folder": ("No run in", "no lottery tickets in", "There is no finished round of tickets in"),
}


def has_use(entry: str, parameter: inspect.Parameter, kind: str) -> bool:
    """Returns whether a parameter has a use for a kind of value, so that it may be taken."""
    if kind in USES.get((entry, parameter.name), USES.get(("", parameter.name), ())):
        return True
    if kind == "object" and (entry, parameter.name) in leaves():
        return True
    return kind in kinds_of(parameter.annotation)


@functools.cache
def leaves() -> set[tuple[str, str]]:
    """Returns the settings that are leaves, by the id of a strategy or a problem."""
    classes = {entry.name: entry.signature for entry in constructors() if isinstance(entry.signature, type)}
    fields = ((id, field) for id, cls in classes.items() for field in dataclasses.fields(cls))
    return {(id, field.name) for id, field in fields if field.metadata["pytree_node"]}


def kinds_of(annotation: Any) -> set[str]:
    """Returns the kinds of value that an annotation allows."""
    if annotation in (Any, inspect.Parameter.empty):
        return set(KINDS)
    if isinstance(annotation, types.UnionType):
        return set().union(*map(kinds_of, typing.get_args(annotation)))
    return {
        type(None): {"none"},
        float: {"fraction", "negative", "huge"},
        int: {"negative", "huge"},
        str: {"text", "empty text"},
        tuple: {"empty tuple"},
    }.get(typing.get_origin(annotation) or annotation, set())


USES: dict[tuple[str, str], tuple[str, ...]] = {
    ("minimize", "key"): ("none",),  # as in `run`
    ("Ticket.train", "key"): ("none",),
    ("Results.compare", "correction"): ("none",),
    ("unrolled/learned_optimizer", "optimizer_hidden"): ("empty tuple",),
}


def main() -> None:
    """Prints the findings, slow calls, and the counts of each entry."""
    os.chdir(tempfile.mkdtemp())  # some values that are tried are names of folders
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for result in outcomes([*functions(), *constructors()]):
        counts[result.entry][result.verdict] += 1
        if result.verdict == "finding":
            print(result)
        if result.seconds > 1:
            print(f"{result.seconds:.1f} s: {result}")
    for entry, each in counts.items():
        print(f"{entry:30}", *(f"{each[verdict]:5} {verdict}" for verdict in ("refused", "taken", "finding")))
    total = sum(counts.values(), collections.Counter())
    print(f"{total.total()} calls", dict(total))


if __name__ == "__main__":
    main()
