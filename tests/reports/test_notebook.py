"""What results and figures show in a notebook."""

import importlib.util
import struct

import jax.numpy as jnp
import pandas as pd
import pytest

import zoo
from tests.benchmarking.test_results import curves_to, make_pair, make_results
from tests.faults import MARKUP
from zoo.figures.style import make_figure
from zoo.tuning.result import Sweep


def sweep():
    rows = [
        {"setting": i, "seed": seed, "score": 1.0 + i + 0.1 * seed, "steps": 10, "seconds": 0.1}
        for i in (0, 1)
        for seed in (0, 1)
    ]
    runs = pd.DataFrame(rows).assign(compile_seconds=0.0, budget=10, error="")
    facts = {"strategy": "s", "problem": MARKUP, "headline": "loss", "maximize": False, "spec": "s"}
    facts |= {"budget": {"generations": 10}, "num_seeds": 2, "num_test_seeds": 2, "space": {"sigma": "uniform(0, 1)"}}
    return Sweep([{"sigma": 0.5}, {"sigma": 0.25}], runs, runs[runs.setting == 0], facts)


def test_results():
    block = make_results(make_pair(MARKUP, "p", curves_to(1.0, 2.0)))._repr_html_()
    assert "<script" not in block
    assert "<strong>1.5 (" in block
    assert "data:image/png;base64," in block
    assert "background" not in block


def test_results_without_pairs():
    """There is nothing to summarise. The block says so, and no error is raised."""
    assert "not shown: ValueError: These results have no finished pair" in make_results()._repr_html_()


def test_sweep():
    found = sweep()
    assert found.table().splitlines()[1].split() == ["1", "0.5", *found.table().splitlines()[1].split()[2:]]
    assert "1.05" in found.table()
    assert found.table().count("*") == 1
    assert len(found.table("markdown", num_settings=1, bold_best=False).splitlines()) == 3
    block = found._repr_html_()
    assert "<script" not in block
    assert "<strong>1.05 (" in block
    assert "data:image/png;base64," in block


def test_run():
    result = zoo.run("random_search", zoo.from_function(lambda x: jnp.sum(x**2), jnp.ones(2)), num_generations=2)
    block = result._repr_html_()
    assert "RunResult" in block
    assert f"<td>{result.scores[result.problem.headline][0]:.4g}</td><td>{result.score:.4g}</td>" in block


def size_of(png):
    return struct.unpack(">II", png[16:24])


def test_figure():
    figure = make_figure(3, 4)
    figure.subplots().plot([1, 2])
    picture, metadata = figure._repr_png_()
    assert size_of(picture) == (800, 600)
    assert metadata == {"width": 400, "height": 300}


@pytest.mark.skipif(importlib.util.find_spec("IPython") is None, reason="IPython is not installed")
def test_figure_in_a_cell():
    from IPython.core.formatters import DisplayFormatter  # pyright: ignore[reportMissingImports]

    figure = make_figure(3, 4)
    data, metadata = DisplayFormatter().format(figure)
    assert size_of(data["image/png"]) == (800, 600)
    assert metadata["image/png"] == {"width": 400, "height": 300}
