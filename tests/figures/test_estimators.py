"""The figure that compares gradient estimators shows their statistics."""

import dataclasses
import itertools
import re
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.figures.drawn import caption, draw


def make_statistics(**values):
    zeros = jnp.zeros(2)
    default = zoo.EstimatorStatistics(
        mean=zeros,
        standard_error=zeros,
        reference=zeros,
        reference_error=zeros,
        total_variance=2.0,
        total_variance_error=0.1,
        bias=0.3,
        bias_by_chance=0.2,
        cosine=0.5,
        reference_sigma=0.1,
        exact=zeros,
        exact_bias=0.1,
        steps_per_estimate=40.0,
        seconds_per_estimate=1e-4,
        num_samples=10,
    )
    return dataclasses.replace(default, **values)


def drawn(axis):
    """Returns the values in a panel, which are points."""
    return [line.get_xdata()[0] for line in axis.lines if line.get_marker() in ("o", "s", "^")]


def test_the_figure_has_a_panel_per_statistic_and_a_row_per_estimator():
    statistics = {"pes, many": make_statistics(), "nres": make_statistics(bias=0.02, cosine=-0.1, total_variance=7.0)}
    figure = zoo.plot_estimators(statistics)
    draw(figure)
    axes = figure.axes
    titles = [axis.get_title() for axis in axes]
    assert len(set(titles)) == len(axes) == 5
    for title, word in zip(titles, ["bias", "cosine", "total variance", "steps", "seconds"], strict=True):
        assert word in title
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == ["pes, many", "nres"]
    assert axes[0].yaxis_inverted()  # the first on top
    expected = [[0.3, 0.02], [0.5, -0.1], [2, 7], [80, 280], [2e-4, 7e-4]]
    for axis, values in zip(axes, expected, strict=True):
        np.testing.assert_allclose(drawn(axis), values, rtol=1e-6)
    assert [axis.get_xscale() for axis in axes] == ["log", "linear", "log", "log", "log"]
    (by_chance,) = [line for line in axes[0].lines if len(line.get_xdata()) == 2]
    np.testing.assert_allclose(by_chance.get_xdata(), 0.2)
    np.testing.assert_allclose(by_chance.get_ydata(), [0, 1])
    statistics["rtrl"] = make_statistics(reference_sigma=None)  # its biases cannot be compared with the others
    labels = [tick.get_text() for tick in zoo.plot_estimators(statistics).axes[0].get_yticklabels()]
    assert labels[1:] == ["nres\n(beside: smoothed by 0.1)", "rtrl\n(beside: exact gradient)"]


def test_the_figure_survives_zeros_and_is_saved(tmp_path):
    """An estimator without noise has zeros, and rounding may even make its variance negative."""
    statistics = {
        "bptt": make_statistics(total_variance=0.0, total_variance_error=0.0, bias=0.0, bias_by_chance=0.0, cosine=1.0),
        "tbptt": make_statistics(total_variance=-1e-9, total_variance_error=1e-9),
        "nres": make_statistics(exact=None, exact_bias=None),
    }
    path = tmp_path / "estimators.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = zoo.plot_estimators(statistics)
        figure.savefig(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "values of zero or below have no point" in caption(figure)
    for axis in figure.axes:
        low, high = axis.get_xlim()
        assert np.isfinite([low, high]).all()
        if axis.get_xscale() == "log":  # values that are not zero are still visible
            assert high / low < 1e12


def test_nothing_to_draw():
    with pytest.raises(ValueError, match=re.escape("expects the statistics of at least one estimator")):
        zoo.plot_estimators({})


@pytest.mark.parametrize("num_references", [1, 2])
def test_twelve_estimators_with_long_names_fit_on_a_page(num_references):
    names = [f"an estimator with a very long name, {i}" for i in range(12)]
    rows = [make_statistics(bias=0.1 * (i + 1), reference_sigma=0.1 * (i % num_references + 1)) for i in range(12)]
    figure = zoo.plot_estimators(dict(zip(names, rows, strict=True)))
    draw(figure)
    assert figure.get_figwidth() == 8
    assert figure.get_figheight() <= 5.6
    ticks = figure.axes[0].get_yticklabels()
    extents = [tick.get_window_extent() for tick in ticks]
    assert len(ticks) == 12
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(extents))
    assert min(extent.x0 for extent in extents) >= 0
    widths = [axis.get_window_extent().width / figure.dpi for axis in figure.axes]
    assert min(widths) > 0.8
