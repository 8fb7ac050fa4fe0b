"""The identity of a program: whether stored results are results of the same program, and may be used again.

The identity consists of settings, the content of arrays, and code. The user's code is compared by its lowered program
(see `zoo.loop.program_text`), the zoo's code by its version and its source files. Precision, the generator of random
numbers, and the versions of the zoo and of JAX count too. Device, compiler flags and other packages are recorded beside
results and do not count.

The identity cannot see:

- what code reads while it runs: files, the environment, the clock, the network;
- custom calls into libraries by name (`jax.ffi`), code behind ctypes, and what Python code calls by `getattr` or
  `eval`;
- code that is traced for other shapes only, because programs are lowered for four members in two groups;
- a library that was changed in place, and the code of libraries that only the zoo uses (optax, flax, gymnax);
- a global that is changed after its program was traced. JAX does not see the change in that process either.

It takes these for another program, although they are the same: code that depends on the order of a set, and host code
under another version of Python.
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
    """The identity of a program, as JSON-able values by name.

    Attributes:
        what: What is run: settings, data, code, key.
        numbers: How this process computes: precision, generator.
        versions: Versions of the zoo and of JAX.
        unseen: Descriptions of code that cannot be compared. A program with such code never equals another one.
    """

    what: dict[str, Any]
    numbers: dict[str, Any]
    versions: dict[str, Any]
    unseen: list[str]

    def facts(self) -> dict[str, Any]:
        """Returns the identity as JSON-able facts, to store beside results."""
        return dataclasses.asdict(self)

    def differences(self, there: Any, *, accept_versions: bool = False) -> list[str]:
        """Returns descriptions of how stored facts differ. The list is empty if they belong to this program.

        Args:
            there: The stored facts.
            accept_versions: Whether to accept results of other versions, and of code that cannot be compared.
        """
        parts = {"what": self.what, "numbers": self.numbers}
        if not accept_versions:
            parts["versions"] = self.versions
        if not isinstance(there, Mapping) or not all(isinstance(there.get(part), Mapping) for part in parts):
            return ["it does not say what it belongs to"]
        found = [line for part, here in parts.items() for line in compare(there[part], here)]
        if not accept_versions and (self.unseen or there.get("unseen")):
            found.append("what cannot be compared: " + "; ".join(self.unseen or there["unseen"]))
        return found

    def check(self, there: Any, complaint: str, *, accept_versions: bool) -> None:
        """Raises a `ValueError` if stored facts belong to another program.

        Args:
            there: The stored facts.
            complaint: The beginning of the message, such as "X is of another run".
            accept_versions: Whether to accept results of other versions, and of code that cannot be compared.
        """
        found = self.differences(there, accept_versions=accept_versions)
        if not found:
            return
        advice = "Choose another folder, or delete this one to start anew"
        if not self.differences(there, accept_versions=True):
            advice += ", or go on anyway with accept_versions=True (in a terminal --accept-versions)"
        raise ValueError(f"{complaint}: {'; '.join(found)}. {advice}.")


def identify(strategy: Strategy, problem: Problem, **facts: Any) -> Identity:
    """Returns the identity of a strategy on a problem. Warns once of code that cannot be compared.

    Args:
        strategy: The strategy, with open settings filled in.
        problem: The problem.
        **facts: Other JSON-able values that are part of the identity.
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
    """Returns descriptions of the entries that differ, with both values unless they are digests."""
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
    """Returns the settings that identify themselves, a digest of all arrays, and the digest of the program, if any."""
    what: dict[str, Any] = {}
    if is_of_library(type(instance)):
        what[f"class of the {kind}"] = f"{type(instance).__module__}:{type(instance).__qualname__}"
    hidden = internal_fields(type(instance))
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if field.name not in hidden and _is_told(value):  # otherwise the program contains it
            what[f"{field.name} of the {kind}"] = _short(describe_value(value))
    what[f"data of the {kind}"] = _digest_of_leaves(instance)
    if text is not None:
        what[f"code of the {kind}"] = f"#{text.digest or uuid.uuid4().hex}"
    return what


def _unseen(text: ProgramText | None) -> list[str]:
    """Returns descriptions of the parts of a program that cannot be compared. Warns once of each."""
    if text is None:
        return []
    for each in text.unseen:
        if text.digest and each not in _said:  # without a digest, the run itself will fail
            _said.add(each)
            warnings.warn(
                f"{each[:1].upper()}{each[1:]} cannot be compared between processes, so results that are kept now will "
                "not be used again, unless accept_versions=True.",
                stacklevel=2,
            )
    return list(text.unseen)


def _needs_text(instance: Any) -> bool:
    """Returns whether an object needs a program text, because it has a class or a function of the user's."""
    return isinstance(instance, HostProblem) or not _is_told(instance)


def _is_told(value: Any) -> bool:
    """Returns whether `describe_value` identifies a value, given the versions of libraries."""
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
        fields = (f for f in dataclasses.fields(value) if f.name not in ("parent", "name"))  # flax's own
        return is_of_library(type(value)) and all(
            (each := getattr(value, f.name)) is f.default or _is_told(each) for f in fields
        )
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return is_of_library(type(value)) and all(map(_is_told, value))
    return is_of_library(value)


def _takes_surrogate(strategy: Strategy, problem: Problem, solution: Any) -> bool:
    """Returns whether a strategy takes the problem's surrogate gradient. A strategy that raises does not run either."""
    found = []

    def ask(key: jax.Array, start: Any) -> None:
        found.append(bool(strategy.takes_surrogate(strategy.init(key, start))))

    try:
        jax.eval_shape(ask, jax.random.key(0), solution)
    except Exception:
        return False
    return found[0]


def _digest_of_leaves(instance: Any) -> str:
    """Returns a digest of the arrays and numbers of an object, with their dtypes."""
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
    """Returns a JSON-able value if it is short, otherwise its digest, which begins with #."""
    is_plain = value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and value == value)
    return value if is_plain and len(str(value)) <= _SHORT and str(value)[:1] != "#" else f"#{fingerprint(value)}"


_SHORT = 60
_said: set[str] = set()
