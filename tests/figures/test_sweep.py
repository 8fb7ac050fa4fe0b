"""The figure of a sweep shows all settings, and those that diverged do not flatten the others."""

import itertools

import numpy as np
import pandas as pd
import pytest

from tests.figures.drawn import caption, draw
from zoo.figures.sweep import plot_sweep
from zoo.statistics.aggregates import interquartile_mean

FACTS = {"maximize": False, "headline": "loss", "num_seeds": 3, "strategy": "s $x$", "problem": "p"}


def make(settings, scores, *, maximize=False):
    """Returns the frame of a sweep, the best first."""
    scores = np.asarray(scores, float)
    order = np.argsort(-scores if maximize else scores, kind="stable")
    frame = pd.DataFrame(settings).iloc[order].reset_index(drop=True)
    scores = scores[order]
    rank = pd.Series(np.arange(1, len(scores) + 1)).where(np.isfinite(scores)).astype("Int64")
    return frame.assign(score=scores, low=scores - 0.1, high=scores + 0.1, rank=rank)


def draw_sweep(frame, names, log=(), **facts):
    figure = plot_sweep(frame, names, {**FACTS, "log": log, **facts})
    draw(figure)
    return figure


@pytest.mark.parametrize("maximize", [False, True])
def test_settings_that_diverged_are_marked_at_the_edge(maximize):
    sign = -1 if maximize else 1
    sigmas = np.geomspace(1e-3, 1, 12)
    scores = sign * np.array([*np.linspace(2, 1, 9), 1e12, 1e20, np.nan])
    frame = make({"sigma": sigmas}, scores, maximize=maximize)
    figure = draw_sweep(frame, ["sigma"], ["sigma"], maximize=maximize)
    (axis,) = figure.axes
    low, high = axis.get_ylim()
    assert high - low < 10
    (points,) = [line for line in axis.lines if line.get_marker() == "o"]
    assert sorted(points.get_ydata()) == sorted(scores[:9])
    (edge,) = [line for line in axis.lines if line.get_marker() in "^v"]
    np.testing.assert_allclose(sorted(edge.get_xdata()), sigmas[9:11])
    assert all(low < y < high for y in edge.get_ydata())
    (cross,) = [line for line in axis.lines if line.get_marker() == "x"]
    np.testing.assert_allclose(cross.get_xdata(), sigmas[11:])
    (star,) = [line for line in axis.lines if line.get_marker() == "*"]
    np.testing.assert_allclose(star.get_xydata(), [[sigmas[8], sign]])
    for band in axis.collections:
        segments = np.concatenate(band.get_segments())
        assert (low <= segments[:, 1]).all()
        assert (segments[:, 1] <= high).all()
    assert axis.get_xscale() == "log"
    assert "triangles: 2 settings beyond the axis; crosses: no score" in caption(figure)


def test_a_grid_of_two_settings_is_a_heat_map():
    """With a third setting, a cell is the mean over it."""
    values = [*itertools.product([0.1, 1.0, 10.0], ["adam", "sgd"], [1, 2])]
    settings = dict(zip(("rate", "optimizer", "size"), zip(*values, strict=True), strict=True))
    scores = [10 * i + j + 0.01 * k for i in range(3) for j in range(2) for k in range(2)]
    figure = draw_sweep(make(settings, scores), [*settings])
    axis = figure.axes[3]
    (mesh,) = axis.collections
    np.testing.assert_allclose(mesh.get_array(), [[0.005, 10.005, 20.005], [1.005, 11.005, 21.005]])
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_xscale()) == ("rate", "optimizer", "log")
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["adam", "sgd"]
    edges = mesh.get_coordinates()[0, :, 0]
    np.testing.assert_allclose(np.log10(edges), [-1.5, -0.5, 0.5, 1.5])


def test_scattered_points_have_the_colour_of_the_nearest_behind_them():
    rng = np.random.default_rng(0)
    rates, sigmas = 10 ** rng.uniform(-3, 0, 16), rng.uniform(0, 5, 16)
    scores = np.log10(rates) ** 2 + 0.01 * sigmas
    frame = make({"rate": rates, "sigma": sigmas}, scores)
    figure = draw_sweep(frame, ["rate", "sigma"], ["rate"])
    axis = figure.axes[2]
    mesh, points = axis.collections[:2]
    offsets, colours = points.get_offsets(), np.asarray(points.get_array())
    np.testing.assert_array_equal(np.sort(colours), np.sort(scores))
    corners = axis.transData.transform(mesh.get_coordinates().reshape(-1, 2)).reshape(81, 81, 2)
    centres = ((corners[:-1, :-1] + corners[1:, 1:]) / 2).reshape(-1, 2)
    size = axis.get_window_extent()
    scale = np.array([size.width, size.height])
    distance = (((centres[:, None] - axis.transData.transform(offsets)) / scale) ** 2).sum(axis=-1)
    assert np.mean(np.asarray(mesh.get_array()).ravel() == colours[np.argmin(distance, axis=1)]) > 0.95


def test_the_line_is_the_mean_of_neighbours():
    frame = make({"sigma": np.arange(16.0)}, np.arange(16.0)[::-1])
    (axis,) = draw_sweep(frame, ["sigma"]).axes
    (line,) = [line for line in axis.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 2]
    np.testing.assert_allclose(line.get_xdata(), np.arange(13) + 1.5)
    np.testing.assert_allclose(line.get_ydata(), 15 - (np.arange(13) + 1.5))
    few = make({"sigma": [1.0, 1.0, 1.0, 1.0, 2.0, 2.0]}, [1.0, 2.0, 3.0, 10.0, 5.0, 6.0])
    (axis,) = draw_sweep(few, ["sigma"]).axes
    (line,) = [line for line in axis.lines if line.get_linestyle() == "-" and line.get_marker() == "None"]
    np.testing.assert_allclose(line.get_xydata(), [[1, interquartile_mean(np.array([1, 2, 3, 10]))], [2, 5.5]])
