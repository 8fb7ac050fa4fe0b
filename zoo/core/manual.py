"""Reads the sections of docstrings, and merges a class's settings with the settings of its base classes."""

import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from zoo.core.distributions import Factor
from zoo.core.short import short

_SECTION = re.compile(r"^(Args|Attributes|Raises|References|Returns|Yields):$")
_ENTRY = re.compile(r"^(\w+): ")
_KEPT_WHOLE = re.compile(r"`[^`\n]{1,40}`|\b(?:arXiv|doi) | - ")
"""Text that no line break may split: short pieces of code, references, and a minus and the word before it."""
_GLUE = "\N{NO-BREAK SPACE}"
_DIGITS = 6  # that are shown of a default


class Setting(NamedTuple):
    """A setting as the manual shows it.

    Attributes:
        name: The name of the setting.
        default: The default as text, or `None` if the setting is required.
        bounds: The bounds of its values as text. Empty if there are none.
        choices: The only valid values, as text. Empty if other values are valid.
        search: The values that are tried where it is tuned, as text. Empty if it is not tuned.
        meaning: The text of the docstring about the setting.
    """

    name: str
    default: str | None
    bounds: str
    choices: str
    search: str
    meaning: str


def with_inherited(cls: type) -> str | None:
    """Returns the docstring of a dataclass with its own attributes and its bases' attributes in one section."""
    if cls.__doc__ is None or cls.__doc__.startswith(f"{cls.__name__}("):  # `dataclass` made it
        return cls.__doc__
    parts = _sections(cls.__doc__)
    own = _entries(parts.pop("Attributes", ""))
    meanings = {**own, **{name: text for name, text in _meanings(cls).items() if name not in own}}
    if not meanings:
        return cls.__doc__
    lines = [_fill(f"{name}: {text}", 112, rest="    ") for name, text in meanings.items()]
    text = parts.pop("")
    sections = {"Attributes": "\n".join(lines), **parts}
    return "\n\n".join([text, *(f"{name}:\n{textwrap.indent(each, '    ')}" for name, each in sections.items())])


def manual(title: str, factory: Callable[..., Any], hidden: Iterable[str] = (), width: int = 80) -> str:
    """Returns the manual of a strategy or a problem: its description, its settings, and its references.

    Args:
        title: The first line.
        factory: A class or a function, with a docstring of sections.
        hidden: Parameters that are not settings.
        width: Characters per line.
    """
    parts = _sections(inspect.getdoc(factory) or "")
    lines = [title, "=" * len(title), ""]
    for paragraph in parts[""].split("\n\n"):
        is_code = any(line.startswith((">>>", "    ")) for line in paragraph.splitlines())
        lines += [paragraph if is_code else _fill(_joined(paragraph.splitlines()), width), ""]
    lines += ["Settings", "--------"]
    settings = [each for each in _settings(factory) if each.name not in hidden]
    for each in settings:
        default = "required" if each.default is None else f"default {each.default}"
        limits = ", ".join(filter(None, (default, each.bounds)))
        facts = "; ".join(filter(None, (limits, each.choices, each.search)))
        lines.append(_fill(f"{each.name}  ({facts})", width, rest="    "))
        if each.meaning:
            lines.append(_fill(each.meaning, width, "    ", "    "))
    if not settings:
        lines.append("It has none.")
    if "References" in parts:
        lines += ["", "References", "----------", _fill(_joined(parts["References"].splitlines()), width)]
    return "\n".join(lines)


def _range(search: Any) -> str:
    """Returns in words which values are tried of a setting that is tuned."""
    if isinstance(search, Factor):
        return f"from {search.low:g} to {search.high:g} times the value that it has on the problem"
    return f"in {search!r}"


def _fill(text: str, width: int, first: str = "", rest: str = "") -> str:
    """Returns a text wrapped to a width. Lines that begin with "- " are list items and are not joined with others.

    Args:
        text: The text.
        width: Characters per line, including the indent.
        first: Indent of the first line.
        rest: Indent of all other lines.
    """
    lines = []
    for number, line in enumerate(text.split("\n")):
        hanging = "  " if line.startswith("- ") else ""
        lines += textwrap.wrap(
            _KEPT_WHOLE.sub(_glue, line),
            width,
            initial_indent=rest if number else first,
            subsequent_indent=f"{rest}{hanging}",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines).replace(_GLUE, " ")


def _glue(match: re.Match[str]) -> str:
    return f"{_GLUE}- " if match[0] == " - " else match[0].replace(" ", _GLUE)


def _joined(lines: Iterable[str]) -> str:
    """Returns lines joined to one line. Each list item begins a new line."""
    text = " ".join(("\n" if line.lstrip().startswith("- ") else "") + line.strip() for line in lines)
    return re.sub(r" +", " ", text.replace(" \n", "\n")).strip()


def _settings(factory: Callable[..., Any]) -> list[Setting]:
    fields = {}
    if isinstance(factory, type) and dataclasses.is_dataclass(factory):
        fields = {field.name: field for field in dataclasses.fields(factory)}
        meanings = _meanings(factory)
    else:
        parts = _sections(inspect.getdoc(factory) or "")
        meanings = _entries(parts.get("Args", parts.get("Attributes", "")))
    settings = []
    for name, parameter in inspect.signature(factory).parameters.items():
        has_default = parameter.default is not parameter.empty
        bounds = fields[name].metadata.get("zoo_bounds", {}) if name in fields else {}
        default = short(_rounded(parameter.default)) if has_default else None
        choices = _choices(fields[name].type if name in fields else parameter.annotation)
        search = fields[name].metadata.get("zoo_search") if name in fields else None
        tuned = "" if search is None else f"tuned {_range(search)}"
        settings.append(Setting(name, default, _bounds(bounds), choices, tuned, meanings.get(name, "")))
    return settings


def _rounded(value: Any) -> Any:
    """Returns a number, or a tuple of numbers, rounded to the digits that are shown."""
    if type(value) is tuple:
        return tuple(map(_rounded, value))
    if type(value) is not float or len(repr(value)) <= _DIGITS + 2:
        return value
    return float(f"{value:.{_DIGITS}g}") if abs(value) < 1e6 else _Text(f"{value:.{_DIGITS}g}")


class _Text(str):
    """Text that is shown without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _choices(annotation: Any) -> str:
    """Returns the choices of a `Literal` annotation as text. Returns an empty text if other values are valid."""
    parts = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    literals = [part for part in parts if typing.get_origin(part) is Literal]
    if not literals or len(literals) < len([part for part in parts if part is not types.NoneType]):
        return ""
    return f"one of {', '.join(map(repr, typing.get_args(literals[0])))}"


def _bounds(bounds: dict[str, Any]) -> str:
    words = {"above": "above", "at_least": "at least", "at_most": "at most"}
    return ", ".join(f"{word} {bounds[name]:g}" for name, word in words.items() if bounds.get(name) is not None)


def _meanings(cls: type) -> dict[str, str]:
    """Returns the text about each shown field, from the docstring of the class or of its nearest base."""
    names = [field.name for field in dataclasses.fields(cls) if field.repr]  # pyright: ignore[reportArgumentType]
    said = [_entries(_sections(base.__doc__ or "").get("Attributes", "")) for base in cls.__mro__]
    return {name: next(each[name] for each in said if name in each) for name in names if any(name in x for x in said)}


def _sections(doc: str) -> dict[str, str]:
    """Returns the sections of a docstring by name. The text before the first section has the empty name."""
    sections: dict[str, list[str]] = {"": []}
    name = ""
    for line in inspect.cleandoc(doc).splitlines():
        if match := _SECTION.match(line):
            name = match[1]
            sections[name] = []
        else:
            sections[name].append(line)
    return {name: textwrap.dedent("\n".join(lines)).strip() for name, lines in sections.items()}


def _entries(section: str) -> dict[str, str]:
    """Returns the entries `name: text` of a section."""
    entries: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in section.splitlines():
        if match := _ENTRY.match(line):
            lines = entries[match[1]] = [line[match.end() :]]
        else:
            lines.append(line.strip())
    return {name: _joined(lines) for name, lines in entries.items()}
