"""How a check says that a promise is broken, and how a list of checks is run."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from zoo.testing.strict import strict_modes

Check = Callable[[Any], None]
"""A function of a case that raises `BrokenPromiseError`. The first line of its docstring is the promise."""


def add_to(checks: list[Check]) -> Callable[[Check], Check]:
    """Returns a decorator that appends a check to a list."""

    def add(check: Check) -> Check:
        checks.append(check)
        return check

    return add


class BrokenPromiseError(AssertionError):
    """A strategy or a problem does not do what its interface promises. The message says which promise, and how."""


def require(condition: Any, message: str) -> None:
    """Raises `BrokenPromiseError` with the message unless the condition holds."""
    if not condition:
        raise BrokenPromiseError(message)


@contextlib.contextmanager
def refuses(*errors: type[Exception], words: str, what: str) -> Iterator[None]:
    """Requires that the code inside raises one of these errors, with the given words in its message.

    Args:
        errors: The types of error that count as a refusal.
        words: A part of the message.
        what: What is refused, for the message: `"a population of size zero"`.
    """
    try:
        yield
    except errors as error:
        if words not in str(error):
            raise BrokenPromiseError(f"{what} is refused without the words {words!r}: {error}") from error
    else:
        raise BrokenPromiseError(f"{what} is accepted; expected a {' or '.join(each.__name__ for each in errors)}.")


def run_check(check: Check, case: Any, *, strict: bool = True) -> None:
    """Runs one check of a case.

    Raises:
        BrokenPromiseError: If the promise does not hold. An error of the author's code is its cause.
    """
    (promise, *_) = (inspect.getdoc(check) or check.__name__).splitlines()
    try:
        with strict_modes() if strict else contextlib.nullcontext():
            check(case)
    except Exception as error:
        what = str(error) if isinstance(error, BrokenPromiseError) else f"{type(error).__name__}: {error}"
        raise BrokenPromiseError(f"{case.name} breaks a promise of {check.__name__}. {promise}\n{what}") from error


def run_checks(checks: Sequence[Check], case: Any, *, skip: Sequence[str], strict: bool) -> None:
    """Runs checks in their order, except for those that are skipped by name.

    Raises:
        BrokenPromiseError: At the first promise that does not hold.
        ValueError: If a name in `skip` is not the name of a check.
    """
    names = [check.__name__ for check in checks]
    if unknown := [name for name in skip if name not in names]:
        raise ValueError(f"skip names checks that do not exist: {unknown}. The checks are {names}.")
    for check in checks:
        if check.__name__ not in skip:
            run_check(check, case, strict=strict)


def require_equal(got: Any, expected: Any, what: str) -> None:
    """Requires that two pytrees have the same structure and entries; names the first leaf that differs."""
    got_leaves, got_structure = jax.tree_util.tree_flatten_with_path(got)
    leaves, structure = jax.tree.flatten(expected)
    require(got_structure == structure, f"{what}: the structure is {got_structure}, expected {structure}.")
    for (path, x), y in zip(got_leaves, leaves, strict=True):
        if not np.array_equal(x, y):
            raise BrokenPromiseError(
                f"{what}: {jax.tree_util.keystr(path) or 'the value'} is {x!r:.200}, expected {y!r:.200}."
            )


def require_signature(got: Any, expected: Any, what: str) -> None:
    """Requires that two pytrees have the same structure, and leaves of the same shape, dtype and weak type."""
    got_leaves, got_structure = jax.tree_util.tree_flatten_with_path(got)
    leaves, structure = jax.tree.flatten(expected)
    require(got_structure == structure, f"{what}: the structure is {got_structure}, expected {structure}.")
    for (path, x), y in zip(got_leaves, leaves, strict=True):
        x, y = _kind(x), _kind(y)
        require(x == y, f"{what}: {jax.tree_util.keystr(path) or 'the value'} is {x}, expected {y}.")


def require_finite(tree: Any, what: str) -> None:
    """Requires that all floating-point entries of a pytree are finite; names the first leaf where one is not."""
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        if np.issubdtype(np.asarray(x).dtype, np.floating) and not np.all(np.isfinite(x)):
            raise BrokenPromiseError(
                f"{what}: {jax.tree_util.keystr(path) or 'the value'} has entries that are not finite."
            )


def _kind(x: Any) -> str:
    if not hasattr(x, "dtype"):
        x = jax.numpy.asarray(x)
    weak = ", weakly typed (made of a Python number)" if getattr(x, "weak_type", False) else ""
    return f"{x.dtype}{[*x.shape]}{weak}"
