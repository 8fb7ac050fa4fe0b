"""Runs the Python blocks of the Markdown files, each document in a folder of its own."""

import os
import pathlib

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser


@pytest.fixture(scope="module")
def scratch_folder(tmp_path_factory):
    """Lets a document write files and register ids, and runs it in JAX's default modes, as a reader does."""
    import jax  # not before `tests/conftest.py` has set the environment

    from zoo import registry

    rows = [(kind, dict(kind.rows)) for kind in (registry._strategies, registry._problems)]
    before = pathlib.Path.cwd()
    os.chdir(tmp_path_factory.mktemp("document"))
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield
    os.chdir(before)
    for kind, those_before in rows:
        kind.rows = those_before


pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["*.md"], fixtures=["scratch_folder"]).pytest()
