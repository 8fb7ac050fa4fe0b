"""How a benchmark is made again: the call in Python, and the command line, as far as the pairs say what was given."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.core.text import plain_text
from zoo.loop.call import stored_recipe
from zoo.registry import label_of
from zoo.reports.contents import PairFacts

_KINDS = ("strategy", "problem")
_USUAL_SCORES = 20  # points of a curve if the call does not say how many


class _MissingError(Exception):
    """The call cannot be written down. The message says why."""


def python_call(metadata: Mapping[str, Any], pairs: Sequence[PairFacts]) -> str:
    """Returns the call in Python that computes all pairs again, with dots where the pairs do not say what was given."""
    comments, given = [], {}
    for kind in _KINDS:
        given[kind] = {}
        for label in dict.fromkeys(getattr(pair, kind) for pair in pairs):
            try:
                given[kind][label] = _python_spec(*_recipe_of(label, kind, pairs), kind)
            except _MissingError as missing:
                given[kind][label] = "..."
                comments.append(f"# In the place of the dots: the {kind} {label!r}, which {missing}.")
    budgets = _numbers_by_problem(pairs, "num_steps")
    steps = set(budgets.values())
    arguments = [*map(_python_items, given.values()), f"num_seeds={metadata.get('num_seeds')!r}"]
    if budgets:
        is_one = len(steps) == 1 and len(budgets) == len(given["problem"])
        arguments.append(f"num_steps={steps.pop() if is_one else budgets!r}")
    scores = set(_numbers_by_problem(pairs, "num_scores").values())
    if len(scores) == 1 and scores != {_USUAL_SCORES}:
        arguments.append(f"num_scores={scores.pop()!r}")
    arguments += [f"{name}={number}" for name, number in _tuning(pairs).items()]
    key = metadata.get("key")
    if isinstance(key, int):
        arguments.append(f"key={key!r}")
    else:
        arguments.append("key=...")
        comments.append(f"# In the place of the key's dots: {json.dumps(key, default=str)}.")
    call = "".join(f"    {argument},\n" for argument in arguments)
    return "\n".join(["import zoo", "", *comments, f"results = zoo.benchmark(\n{call})"])


def command_line(metadata: Mapping[str, Any], pairs: Sequence[PairFacts]) -> str | None:
    """Returns the command that computes all pairs again, or `None` if there is no such command."""
    words, key = ["zoo", "benchmark"], metadata.get("key")
    budgets, scores = _numbers_by_problem(pairs, "num_steps"), _numbers_by_problem(pairs, "num_scores")
    try:
        for kind, option in zip(_KINDS, ("-s", "-p"), strict=True):
            for label in dict.fromkeys(getattr(pair, kind) for pair in pairs):
                id, settings, for_problem = _recipe_of(label, kind, pairs)
                spec = {"id": id, **settings} if settings else id
                is_made = kind == "strategy" and not for_problem
                if is_made or label_of(spec) != label or _from_json(spec) != spec:
                    return None
                words += [option, spec if isinstance(spec, str) else json.dumps(spec)]
    except (_MissingError, TypeError, ValueError):
        return None
    if not isinstance(key, int) or any(scores.get(p) != min(_USUAL_SCORES, budgets[p]) for p in budgets):
        return None
    words += ["--seeds", str(metadata.get("num_seeds")), "--key", str(key)]
    for name, number in _tuning(pairs).items():
        words += [f"--{name.replace('_', '-')}", str(number)]
    for problem, steps in budgets.items():
        words += ["--steps", f"{problem}={steps}"]
    return shlex.join(words)


def _recipe_of(label: str, kind: str, pairs: Sequence[PairFacts]) -> tuple[str, dict[str, Any], bool]:
    """Returns the id, the settings, and whether the problem filled in open settings, of what was given for a label.

    Raises:
        _MissingError: If a pair does not say, or two pairs say different things.
    """
    found = []
    for pair in pairs:
        if getattr(pair, kind) != label:
            continue
        call = pair.info.get("call")
        stored = call.get(kind) if isinstance(call, Mapping) else None
        if not isinstance(stored, Mapping):
            raise _MissingError("was not recorded")
        if "missing" in stored:
            raise _MissingError(plain_text(stored["missing"]))
        try:
            recipe = stored_recipe(call, kind)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise _MissingError("is recorded in a form that cannot be read") from None
        if recipe not in found:
            found.append(recipe)
    if len(found) != 1:
        raise _MissingError("has other settings on some problems, which are listed under Settings")
    return found[0]


def _python_spec(id: str, settings: Mapping[str, Any], for_problem: bool, kind: str) -> str:
    if not for_problem and kind == "strategy":  # made beforehand, without the suggestions of the problem
        return f"zoo.make_strategy({', '.join([repr(id), *(f'{name}={value!r}' for name, value in settings.items())])})"
    return repr({"id": id, **settings}) if settings else repr(id)


def _python_items(specs: Mapping[str, str]) -> str:
    """Returns a list of ids, or a mapping from labels if these say more."""
    if all(spec == repr(label) for label, spec in specs.items()):
        return f"[{', '.join(specs.values())}]"
    return f"{{{', '.join(f'{label!r}: {spec}' for label, spec in specs.items())}}}"


def _numbers_by_problem(pairs: Sequence[PairFacts], name: str) -> dict[str, int]:
    return {pair.problem: pair.info[name] for pair in pairs if isinstance(pair.info.get(name), int)}


def _tuning(pairs: Sequence[PairFacts]) -> dict[str, int]:
    """Returns how many settings and seeds strategies were tuned with. A strategy may have fewer settings to try."""
    found = [facts for pair in pairs if isinstance(facts := pair.info.get("tuning"), Mapping)]
    given = {"tune": "num_settings", "tune_seeds": "num_seeds"}
    numbers = {
        name: [facts[fact] for facts in found if isinstance(facts.get(fact), int)] for name, fact in given.items()
    }
    return {name: max(each) for name, each in numbers.items() if each}


def _from_json(spec: Any) -> Any:
    return json.loads(json.dumps(spec))
