"""What docstrings say of settings: `zoo.describe`, and `help` of a class with what its bases say."""

import dataclasses

import pytest

import zoo
from tests.the_loop import IDS
from zoo.core.manual import _settings, manual, with_inherited
from zoo.core.settings import internal_fields

PROBLEMS = ["blackbox/sphere", "rl/CartPole-v1", "supervised/digits", "unrolled/lorenz", "unrolled/learned_optimizer"]


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


@pytest.mark.parametrize("id", [*IDS, *PROBLEMS])
def test_every_setting_is_explained_in_80_columns(id):
    text = zoo.describe(id)
    assert text.startswith(f"{id}, a {'problem' if id in PROBLEMS else 'strategy'}\n")
    assert all(len(line) <= 80 for line in text.splitlines() if line.startswith("    ")), text
    make = zoo.make_problem if id in PROBLEMS else zoo.make_strategy
    factory = type(make(id))
    hidden = internal_fields(factory)
    assert [each.name for each in _settings(factory) if not each.meaning and each.name not in hidden] == []
    if id in IDS:
        names = [field.name for field in dataclasses.fields(factory) if field.name not in hidden]  # pyright: ignore[reportArgumentType]
        assert all(f"\n{name}  (" in text for name in names)


def test_ids_that_are_none():
    with pytest.raises(ValueError, match=r"Unknown strategy 'cma'\. Did you mean .*'cma_es'"):
        zoo.describe("cma")
    with pytest.raises(ValueError, match="Unknown problem 'rl/nope'"):
        zoo.describe("rl/nope")
    with pytest.raises(TypeError, match="describe expects an id such as 'open_es'"):
        zoo.describe(3)  # pyright: ignore[reportArgumentType]
