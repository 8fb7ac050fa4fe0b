"""Checks the arguments of public functions before anything else runs. Errors are one line."""

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, get_args, get_origin

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

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for each, value in (*zip(order, args, strict=False), *kwargs.items()):
            if each in checks:
                checks[each](value, f"{name}: {each}")
        return fn(*args, **kwargs)

    return call


def _check_of(annotation: Any) -> Callable[[Any, str], None] | None:
    """Returns the check for values of an annotation, or `None` if there is no check for it."""
    parts = set(get_args(annotation)) if isinstance(annotation, types.UnionType) else {annotation}
    some = parts - {type(None)}
    if some == {float}:
        return lambda value, name: None if value is None and some != parts else check_number(value, name)
    if some == {bool} or (some != parts and all(get_origin(part) is Callable for part in some)):
        return lambda value, name: checked_by_annotation(value, name, annotation)
    return None
