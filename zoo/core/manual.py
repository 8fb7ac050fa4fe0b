"""Reads the sections of docstrings, and merges a class's settings with the settings of its base classes."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from zoo.core.short import short

_SECTION = re.compile(r"^(Args|Attributes|Raises|References|Returns|Yields):$")
_ENTRY = re.compile(r"^(\w+): ")


class Setting(NamedTuple):
    """A setting as the manual shows it.

    Attributes:
        name: The name of the setting.
        default: The default as text, or `None` if the setting is required.
        bounds: The bounds of its values as text. Empty if there are none.
        meaning: The text of the docstring about the setting.
    """

    name: str
    default: str | None
    bounds: str
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
    lines = [textwrap.fill(f"{name}: {text}", 112, subsequent_indent="    ") for name, text in meanings.items()]
    text = parts.pop("")
    sections = {"Attributes": "\n".join(lines), **parts}
    return "\n\n".join([text, *(f"{name}:\n{textwrap.indent(each, '    ')}" for name, each in sections.items())])


def manual(title: str, factory: Callable[..., Any], hidden: Iterable[str] = (), width: int = 80) -> str:
    """Returns what there is to know of a strategy or a problem: what it is, its settings, and its references.

    Args:
        title: The first line.
        factory: A class or a function, with a docstring of sections.
        hidden: Parameters that are no settings.
        width: Characters of a line.
    """
    parts = _sections(inspect.getdoc(factory) or "")
    lines = [title, "=" * len(title), ""]
    for paragraph in parts[""].split("\n\n"):
        is_list = any(line.startswith(("- ", ">>>", " ")) for line in paragraph.splitlines())
        lines += [paragraph if is_list else textwrap.fill(paragraph, width), ""]
    lines += ["Settings", "--------"]
    settings = [each for each in _settings(factory) if each.name not in hidden]
    for each in settings:
        default = "required" if each.default is None else f"default {each.default}"
        lines.append(f"{each.name}  ({', '.join(filter(None, (default, each.bounds)))})")
        if each.meaning:
            lines.append(textwrap.fill(each.meaning, width, initial_indent="    ", subsequent_indent="    "))
    if not settings:
        lines.append("It has none.")
    if "References" in parts:
        lines += ["", "References", "----------", textwrap.fill(parts["References"], width)]
    return "\n".join(lines)


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
        settings.append(
            Setting(name, short(parameter.default) if has_default else None, _bounds(bounds), meanings.get(name, ""))
        )
    return settings


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
    return {name: " ".join(" ".join(lines).split()) for name, lines in entries.items()}
