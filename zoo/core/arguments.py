"""Checks the arguments of public functions before anything else runs. Errors are one line."""

import difflib
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, get_args, get_origin

from zoo.core.advice import BOUNDS_NAMES, bounds_advice
from zoo.core.checks import check_number, checked_by_annotation

P = ParamSpec("P")
R = TypeVar("R")


def checks_arguments(fn: Callable[P, R]) -> Callable[P, R]:
    """Makes a function check its arguments that are annotated as `bool`, `float` or an optional function.

    Whole numbers are not checked here, because an annotation does not give their bounds; see `as_count`.
    """
    name = fn.__qualname__.removesuffix(".__init__")
    parameters = inspect.signature(fn).parameters
    checks = {each: check for each, p in parameters.items() if (check := _check_of(p.annotation)) is not None}
    order = tuple(parameters)
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for each, value in (*zip(order, args, strict=False), *kwargs.items()):
            if each in checks:
                checks[each](value, f"{name}: {each}")
        for each in () if takes_all else kwargs:
            if each not in parameters:
                raise TypeError(f"{name} has no argument {each!r}.{_hint(each, order)}")
        return fn(*args, **kwargs)

    return call


def _hint(unknown: str, known: tuple[str, ...]) -> str:
    """Returns a hint about an unknown argument, to be appended to the error."""
    takes_strategy = "strategy" in known or "strategies" in known
    if takes_strategy and unknown in BOUNDS_NAMES:
        return f" {bounds_advice('cma_es')}"
    if near := difflib.get_close_matches(unknown, known, n=1, cutoff=0.6):
        return f" Did you mean {near[0]!r}?"
    if takes_strategy:
        return ' A setting of a strategy goes with its id: {"id": "cma_es", "sigma": 0.5}.'
    return f" It has {', '.join(known)}."


def _check_of(annotation: Any) -> Callable[[Any, str], None] | None:
    """Returns the check for values of an annotation, or `None` if there is no check for it."""
    parts = set(get_args(annotation)) if isinstance(annotation, types.UnionType) else {annotation}
    some = parts - {type(None)}
    if some == {float}:
        return lambda value, name: None if value is None and some != parts else check_number(value, name)
    if some == {bool} or (some != parts and all(get_origin(part) is Callable for part in some)):
        return lambda value, name: checked_by_annotation(value, name, annotation)
    return None
