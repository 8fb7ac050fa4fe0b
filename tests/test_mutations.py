"""The patches that break the code on purpose still apply, so that `python -m tests.mutations` can run them."""

import collections
import re

from tests.mutations.__main__ import HERE, ROOT, apply, module_of

PATCHES = sorted(HERE.rglob("*.patch"))


def test_patches_apply_and_say_what_they_break():
    failed = []
    for patch in PATCHES:
        first, second, *_ = patch.read_text().splitlines()
        if not re.fullmatch(r"[A-Z].*\.", first) or second:
            failed.append(f"{patch.relative_to(ROOT)}: its first line should be a sentence that says what it breaks")
        try:
            apply(patch, ROOT, "--check")
        except ValueError as error:
            failed.append(str(error))
    assert not failed, "\n".join(failed)


def test_each_module_with_an_oracle_has_three():
    numbers = collections.Counter(map(module_of, PATCHES))
    assert len(numbers) > 40
    assert all((ROOT / module).is_file() for module in numbers)
    assert {module: n for module, n in numbers.items() if n < 3} == {}
