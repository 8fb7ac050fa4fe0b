"""What docstrings say of settings: `zoo.describe`, and `help` of a class with what its bases say."""

import re
import textwrap
from typing import Literal

import pytest

import zoo
from zoo.core.manual import _settings, manual, with_inherited
from zoo.core.settings import internal_fields
from zoo.registry import catalogue


class Base(zoo.Problem):
    """The base.

    Attributes:
        far: What the base says,
            on two lines: of all.
        near: What the base says.
    """

    far: float = zoo.number(1.0, above=0, at_most=2)
    near: int = zoo.static(3, at_least=1)
    _hidden: int = zoo.leaf(0, internal=True)


class Derived(Base):
    """The class.

    It says more.

    Attributes:
        near: What the class says.

    References:
        Somebody 2020.
    """

    unsaid: int = zoo.static()


def test_a_class_is_documented_with_what_its_bases_say():
    assert Derived.__doc__ is not None
    lines = Derived.__doc__.splitlines()
    assert lines[0] == "The class."
    assert "    near: What the class says." in lines
    assert "    far: What the base says, on two lines: of all." in lines
    assert lines[-2:] == ["References:", "    Somebody 2020."]
    assert "member_batch_size" in Derived.__doc__
    assert "What the base says." not in Derived.__doc__.replace("What the base says, on", "")
    assert with_inherited(Derived) == Derived.__doc__  # once more changes nothing
    assert "_hidden" not in Derived.__doc__


def test_the_manual_of_a_class():
    text = manual("derived", Derived, internal_fields(Derived), width=60)
    settings = text.partition("Settings\n--------\n")[2].partition("\n\nReferences")[0].splitlines()
    assert "far  (default 1.0, above 0, at most 2)" in settings
    assert "near  (default 3, at least 1)" in settings
    assert settings[settings.index("near  (default 3, at least 1)") + 1] == "    What the class says."
    assert "unsaid  (required)" in settings
    assert "hidden" not in text
    assert text.endswith("References\n----------\nSomebody 2020.")


def rows(kind):
    """All ids, but one of each namespace."""
    return [id.replace("*", names[0]) if names else id for id, _, names in catalogue(kind)]


@pytest.mark.parametrize("kind", ["strategy", "problem"])
def test_every_id_is_explained_in_80_columns(kind):
    """No line is longer, and every setting has its meaning, its default and its bounds or choices."""
    registry = zoo.registry._registry(kind)
    for id in rows(kind):
        text = zoo.describe(id)
        assert text.startswith(f"{id}, a {kind}\n")
        assert [line for line in text.splitlines() if len(line) > 80] == []
        factory, name = registry.factory(id)
        hidden = {*internal_fields(factory), *(() if name is None else (factory.namespace_field,))}
        settings = text.partition("Settings\n--------\n")[2].partition("\n\nReferences")[0]
        parts = re.split(r"^(?=\S)", settings, flags=re.MULTILINE)[1:]
        heads = [" ".join(part.split()) for part in parts]
        expected = [each for each in _settings(factory) if each.name not in hidden]
        assert [head.partition(" ")[0] for head in heads] == [each.name for each in expected]
        for head, each in zip(heads, expected, strict=True):
            assert each.meaning, (id, each.name)
            assert each.default is None or f"(default {each.default}" in head
            assert each.bounds in head
            assert each.choices in head


def test_the_layout_of_a_manual():
    """Lists stay lists, short code and references stay whole, and numbers have few digits."""

    def factory(rate=2 / 3, large=1e14, mode: Literal["a", "b"] = "a"):
        """Makes one.

        - the first, which is long enough for a second line;
        - the second - not the third.

        Args:
            rate: It is `{"id": "low_rank"}` or so.
            large: Either of:
                - `"one"`: the first;
                - `"two"`: the leave-one-out one.
            mode: One.

        References:
            Somebody 2020, arXiv 2020.12345.
        """

    assert manual("it", factory, width=29) == textwrap.dedent("""\
        it
        ==

        Makes one.

        - the first, which is long
          enough for a second line;
        - the second - not the third.

        Settings
        --------
        rate  (default 0.666667)
            It is
            `{"id": "low_rank"}` or
            so.
        large  (default 1e+14)
            Either of:
            - `"one"`: the first;
            - `"two"`: the
              leave-one-out one.
        mode  (default 'a'; one of
            'a', 'b')
            One.

        References
        ----------
        Somebody 2020,
        arXiv 2020.12345.""")


def test_ids_that_are_none():
    with pytest.raises(ValueError, match=r"Unknown id 'cma'\. Did you mean .*'cma_es'"):
        zoo.describe("cma")
    with pytest.raises(ValueError, match="Unknown id 'rl/nope'"):
        zoo.describe("rl/nope")
    with pytest.raises(TypeError, match="describe expects an id such as 'open_es'"):
        zoo.describe(3)  # pyright: ignore[reportArgumentType]
