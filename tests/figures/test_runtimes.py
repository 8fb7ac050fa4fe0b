"""Runtime distributions and data profiles show the steps at which runs reached their targets."""

import numpy as np
import pytest

from tests.benchmarking.test_results import make_results
from tests.benchmarking.test_runtimes import NAN, make_toy, timed_pair
from tests.figures.drawn import boxes, draw, lines, overlaps


@pytest.fixture
def toy():
    return make_toy()


def curve(figure, label):
    """Returns the curve of a strategy, and its cross."""
    (axis,) = figure.axes
    line = next(line for line in axis.lines if line.get_label() == label)
    cross = next(x for x in axis.lines if x.get_marker() == "x" and x.get_color() == line.get_color())
    return line.get_xdata().tolist(), line.get_ydata().tolist(), (cross.get_xdata()[0], cross.get_ydata()[0])


def test_runtime_distribution(toy):
    """There are eight (problem, target, seed) triples. Time is in steps per dimension, with 4 or 9 dimensions."""
    figure = toy.plot_ecdf()
    x, y, cross = curve(figure, "a")
    np.testing.assert_allclose(x[1:-1], [1, 2, 30 / 9, 60 / 9, 10, 10, 120 / 9])
    np.testing.assert_allclose(y[1:-1], np.arange(1, 8) / 8)
    assert (x[0], y[0]) == (1 / 9, 0)  # the first step
    assert (x[-1], y[-1]) == (200 / 9, 7 / 8)
    assert cross == (10, 6 / 8)  # the end of its shortest run
    x, y, cross = curve(figure, "b")  # a pair that was not run counts as not reached
    assert (x[1:], y[1:], cross) == ([5, 200 / 9], [1 / 8, 1 / 8], (12.5, 1 / 8))
    assert figure.axes[0].get_xscale() == "log"
    assert boxes(figure.axes[0]).keys() == {"a", "b"}
    assert figure.axes[0].lines[0].get_color() == toy.plot().axes[0].lines[0].get_color()


def test_nothing_reached():
    x, y, cross = curve(make_results(timed_pair("a", "p", [1.0], [[NAN]], [40])).plot_ecdf(), "a")
    assert (x, y, cross) == ([1 / 4, 10], [0, 0], (10, 0))


def test_data_profile(toy):
    """There are four pairs of problem and seed. The unit of time is n + 1 steps, 5 or 10."""
    x, y, _ = curve(toy.plot_data_profile(), "a")
    assert (x[1:-1], y[1:-1]) == ([8, 9, 12], [1 / 4, 2 / 4, 3 / 4])
    x, y, _ = curve(toy.plot_data_profile(1.0), "b")
    assert (x[1:-1], y[1:-1]) == ([4], [1 / 4])
    x, y, _ = curve(toy.plot_data_profile([1.0, 1e-8]), "a")
    assert y[1:-1] == (np.arange(1, 8) / 8).tolist()
    with pytest.raises(ValueError, match="No runtime to the target"):
        toy.plot_data_profile(1e-3)


def test_those_that_reach_most_are_in_colour():
    steps = [[float(i + 1), NAN if i > 20 else 10.0 + i] for i in range(30)]
    results = make_results(*(timed_pair(f"s{i}", "p", [1.0, 0.1], [row], [100]) for i, row in enumerate(steps)))
    figure = results.plot_ecdf()
    draw(figure)
    (axis,) = figure.axes
    assert lines(axis).keys() == {f"s{i}" for i in range(10)}
    assert boxes(axis).keys() == lines(axis).keys() | {"20 others"}
    assert overlaps(boxes(axis)) == []
    assert len([line for line in axis.lines if line.get_marker() == "x"]) == 10
    assert lines(results.plot_data_profile(top=3).axes[0]).keys() == {"s0", "s1", "s2"}
