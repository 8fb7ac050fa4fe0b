"""What tells the results of one program from those of another, wherever results are kept and used again.

Settings count, arrays by their content, and code by what it computes: the user's by the lowered program (see
`zoo.loop.program_text`), the zoo's by its version and its source files. So do precision, the generator of random
numbers, and the versions of the zoo and of JAX. Device, compiler flags and other packages are recorded beside results
and do not count.

What it cannot see:

- What code reads while it runs: files, the environment, the clock, the network.
- Custom calls into libraries by name (`jax.ffi`), code behind ctypes, what Python code calls by `getattr` or `eval`.
- Code that is traced for other shapes only: programs are lowered for four members in two groups.
- A library that was changed in place, and libraries' code that the zoo alone uses (optax, flax, gymnax).
- A global that is changed after the program that has it was traced: JAX does not see it in that process either.

And what it takes for another program though it is none: code that goes by the order of a set, and host code under
another version of Python.
"""

import dataclasses
import functools
import hashlib
import uuid
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jaxlib.version
import numpy as np

from zoo._version import __version__
from zoo.core.keys import is_key
from zoo.core.problem import Problem
from zoo.core.settings import internal_fields
from zoo.core.strategy import Strategy
from zoo.host.problem import HostProblem
from zoo.loop.libraries import digest_of_sources, is_of_library
from zoo.loop.once import once_per_object
from zoo.loop.program_text import ProgramText, text_of_gradient, text_of_problem, text_of_strategy
from zoo.loop.provenance import describe_numbers, describe_value, fingerprint


@dataclasses.dataclass(frozen=True)
class Identity:
    """What tells results from others: JSON-able values by name.

    Attributes:
        what: What was run: settings, data, code, key.
        numbers: How this process computes: precision, generator.
        versions: Of the zoo and of JAX.
        unseen: In words, code that cannot be compared. What has some is never the same.
    """

    what: dict[str, Any]
    numbers: dict[str, Any]
    versions: dict[str, Any]
    unseen: list[str]

    def facts(self) -> dict[str, Any]:
        """Returns it as JSON-able facts, to be stored beside results."""
        return dataclasses.asdict(self)

    def differences(self, there: Any, *, accept_versions: bool = False) -> list[str]:
        """Returns in words how stored facts differ; nothing if results under them are those of this program.

        Args:
            there: The stored facts.
            accept_versions: Whether the results of other versions, and of code that cannot be compared, will do.
        """
        parts = {"what": self.what, "numbers": self.numbers}
        if not accept_versions:
            parts["versions"] = self.versions
        if not isinstance(there, Mapping) or not all(isinstance(there.get(part), Mapping) for part in parts):
            return ["what it is of is not said"]
        found = [line for part, here in parts.items() for line in compare(there[part], here)]
        if not accept_versions and (self.unseen or there.get("unseen")):
            found.append("what cannot be compared: " + "; ".join(self.unseen or there["unseen"]))
        return found

    def check(self, there: Any, complaint: str, *, accept_versions: bool) -> None:
        """Raises an error if stored facts are of another program, with a complaint such as "X is of another run"."""
        found = self.differences(there, accept_versions=accept_versions)
        if not found:
            return
        advice = "Choose another folder, or delete this one to start anew"
        if not self.differences(there, accept_versions=True):
            advice += ", or go on all the same with accept_versions=True (in a terminal --accept-versions)"
        raise ValueError(f"{complaint}: {'; '.join(found)}. {advice}.")


def identify(strategy: Strategy, problem: Problem, **facts: Any) -> Identity:
    """Returns the identity of a strategy on a problem, warning once of what cannot be seen of it.

    Args:
        strategy: The strategy, open settings filled in.
        problem: The problem.
        **facts: JSON-able values that matter besides.
    """
    solution = jax.eval_shape(problem.initial_solution, jax.random.key(0))
    of_strategy, unseen_strategy = _identify_strategy(strategy, solution)
    of_problem, unseen_problem = once_per_object(problem, "identity", lambda: _identify_problem(problem))
    what = {**of_strategy, **of_problem, **{name.replace("_", " "): _short(value) for name, value in facts.items()}}
    unseen = [*unseen_strategy, *unseen_problem]
    if _needs_text(problem) and _takes_surrogate(strategy, problem, solution):
        text = text_of_gradient(problem)
        what["gradient of the problem"] = f"#{text.digest or uuid.uuid4().hex}"
        unseen += _unseen(text)
    return Identity(what, describe_numbers(), _versions(), unseen)


def _versions() -> dict[str, Any]:
    return {
        "zoo": __version__,
        "source files of the zoo": digest_of_sources(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.version.__version__,
    }


def compare(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Returns in words which entries differ, with both values where they can be read."""
    found = []
    for name in dict.fromkeys([*here, *there]):
        one, other = there.get(name), here.get(name)
        if one == other and type(one) is type(other):
            continue
        is_digest = any(isinstance(each, str) and each.startswith("#") for each in (one, other))
        found.append(name if is_digest else f"{name}: {one} there, {other} here")
    return found


def _identify_strategy(strategy: Strategy, solution: Any) -> tuple[dict[str, Any], list[str]]:
    text = text_of_strategy(strategy, solution) if _needs_text(strategy) else None
    return _identify(strategy, "strategy", text), _unseen(text)


def _identify_problem(problem: Problem) -> tuple[dict[str, Any], list[str]]:
    text = text_of_problem(problem) if _needs_text(problem) else None
    what = _identify(problem, "problem", text)
    what["score of the problem"] = _short([problem.headline, problem.maximize, problem.fitness_is_score])
    return what, _unseen(text)


def _identify(instance: Any, kind: str, text: ProgramText | None) -> dict[str, Any]:
    """Returns settings that can be read, a digest of all arrays, and that of the program if there is one."""
    what: dict[str, Any] = {}
    if is_of_library(type(instance)):
        what[f"class of the {kind}"] = f"{type(instance).__module__}:{type(instance).__qualname__}"
    hidden = internal_fields(type(instance))
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if field.name not in hidden and _is_told(value):  # else it is part of the program
            what[f"{field.name} of the {kind}"] = _short(describe_value(value))
    what[f"data of the {kind}"] = _digest_of_leaves(instance)
    if text is not None:
        what[f"code of the {kind}"] = f"#{text.digest or uuid.uuid4().hex}"
    return what


def _unseen(text: ProgramText | None) -> list[str]:
    """Returns what of a program cannot be seen, warning of it once."""
    if text is None:
        return []
    for each in text.unseen:
        if text.digest and each not in _said:  # else it fails when it is run, and says so
            _said.add(each)
            warnings.warn(
                f"{each[:1].upper()}{each[1:]} cannot be compared with what it is in another process, so that results "
                "kept now will not be used again, unless accept_versions=True.",
                stacklevel=2,
            )
    return list(text.unseen)


def _needs_text(instance: Any) -> bool:
    """Whether settings and the zoo's version do not tell all: it has a class or a function of the user's."""
    return isinstance(instance, HostProblem) or not _is_told(instance)


def _is_told(value: Any) -> bool:
    """Whether `describe_value` tells a value from all others, given the versions of libraries."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.dtype, np.generic)):
        return True
    if isinstance(value, np.ndarray | jax.Array):
        return value.dtype != object
    if type(value) in (tuple, list):
        return all(map(_is_told, value))
    if type(value) is dict:
        return all(isinstance(key, str) for key in value) and all(map(_is_told, value.values()))
    if isinstance(value, functools.partial):
        return _is_told(value.func) and _is_told(value.args) and _is_told(value.keywords)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (f for f in dataclasses.fields(value) if f.name not in ("parent", "name"))  # those of flax
        return is_of_library(type(value)) and all(
            (each := getattr(value, f.name)) is f.default or _is_told(each) for f in fields
        )
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return is_of_library(type(value)) and all(map(_is_told, value))
    return is_of_library(value)


def _takes_surrogate(strategy: Strategy, problem: Problem, solution: Any) -> bool:
    """Whether a strategy takes the problem's surrogate gradient; if it cannot be asked, it does not run either."""
    found = []

    def ask(key: jax.Array, start: Any) -> None:
        found.append(bool(strategy.takes_surrogate(strategy.init(key, start))))

    try:
        jax.eval_shape(ask, jax.random.key(0), solution)
    except Exception:
        return False
    return found[0]


def _digest_of_leaves(instance: Any) -> str:
    """Returns a digest of arrays and numbers, with their dtypes."""
    digest = hashlib.sha256()
    leaves: list[Any] = jax.tree.leaves(instance)
    for leaf in leaves:
        if isinstance(leaf, np.generic | np.ndarray | jax.Array):
            value: Any = leaf
            array = np.asarray(jax.random.key_data(value) if is_key(value) else value)
            kind = jax.random.key_impl(value) if is_key(value) else array.dtype
            digest.update(f"{kind} {array.shape}\n".encode() + array.tobytes())
        else:
            digest.update(f"{type(leaf).__name__} {leaf!r}\n".encode())
    return f"#{digest.hexdigest()[:16]}"


def _short(value: Any) -> Any:
    """Returns a JSON-able value: itself if it can be read at a glance, else a digest, which begins with #."""
    is_plain = value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and value == value)
    return value if is_plain and len(str(value)) <= _SHORT and str(value)[:1] != "#" else f"#{fingerprint(value)}"


_SHORT = 60
_said: set[str] = set()
