"""Learning curves show the interquartile means of their frames, and all of them can be seen."""

import numpy as np
import pytest

from tests.benchmarking.test_results import curves_to, make_example, make_pair, make_results
from tests.figures.drawn import boxes, caption, draw, legend, lines, overlaps
from zoo.statistics.aggregates import interquartile_mean


@pytest.fixture
def results():
    return make_example()


def make_many(count, *, seed=0):
    """Returns results of many strategies on two problems: `s0` is the best on `p`, and the last one on `q`."""
    rng = np.random.default_rng(seed)
    pairs = []
    for i in range(count):
        falls = 10.0 * np.exp(-np.arange(5) * (count - i) / 10) * rng.uniform(0.9, 1.1, (2, 1))
        rises = (i + 1.0) * np.arange(5) * rng.uniform(0.999, 1.001, (2, 1))
        pairs += [make_pair(f"s{i}", "p", falls), make_pair(f"s{i}", "q", rises, maximize=True)]
    return make_results(*pairs)


def test_plot(results):
    figure = results.plot()
    assert len(figure.axes) == 4  # two problems, against steps and against seconds
    assert [axis.get_title() for axis in figure.axes] == ["low/1", "low/1", "high", "high"]
    for axis, direction in zip(
        figure.axes, ("lower", "", "higher", ""), strict=True
    ):  # a row shares its axis of scores
        assert axis.get_ylabel() == (f"score ({direction} is better)" if direction else "")
        assert [line.get_label() for line in axis.lines] == ["a", "b"]  # the failed strategy has no line
        assert len(axis.collections) == 2  # the bands
    assert ["steps" in axis.get_xlabel() for axis in figure.axes] == [True, False, True, False]
    assert ["seconds" in axis.get_xlabel() for axis in figure.axes] == [False, True, False, True]
    for left, right in (figure.axes[:2], figure.axes[2:]):
        assert left.get_ylim() == right.get_ylim()
        assert boxes(left).keys() == {"a", "b"}
    assert "over 5 seeds; band: 95 %" in caption(figure)
    line = figure.axes[0].lines[0]
    assert line.get_xdata()[0] == 0
    assert line.get_xdata()[-1] == 34  # the last step of the seed with the most steps
    assert line.get_ydata()[-1] == pytest.approx(interquartile_mean(results.scores("a", "low/1")))
    initial = results.curves.query("strategy == 'a' and problem == 'low/1' and metric == 'score' and generation == 0")
    assert line.get_ydata()[0] == pytest.approx(interquartile_mean(initial.value.to_numpy()))
    assert figure.axes[1].lines[0].get_xdata()[-1] == 1.5
    # Colours belong to strategies.
    assert figure.axes[0].lines[1].get_color() == figure.axes[2].lines[1].get_color() != line.get_color()


def test_plot_of_one_problem(results):
    figure = results.plot("high")
    assert [axis.get_title() for axis in figure.axes] == ["high", "high"]
    with pytest.raises(KeyError, match="No problem 'hihg'"):
        results.plot("hihg")


@pytest.mark.parametrize(
    ("curve", "maximize", "scale"),
    [
        ([1e4, 1.0, 1e-3], False, "log"),
        ([9.0, 5.0, 1.0], False, "linear"),
        ([1e4, 1.0, 0.0], False, "log"),
        ([1e4, 1.0, -1.0], False, "linear"),
        ([1e-3, 1.0, 1e4], True, "linear"),
        ([np.nan, np.nan, np.nan], False, "linear"),
    ],
)
def test_scale_of_a_plot(curve, maximize, scale):
    figure = make_results(make_pair("a", "p", [curve, curve], maximize=maximize)).plot()
    assert [axis.get_yscale() for axis in figure.axes] == [scale, scale]


def test_plot_of_a_problem_where_all_failed():
    results = make_results(make_pair("a", "p", [], error="ValueError: no"), make_pair("a", "q", curves_to(1.0, 2.0)))
    figure = results.plot()
    assert [len(axis.lines) for axis in figure.axes] == [0, 0, 1, 1]
    assert [text.get_text() for text in figure.axes[0].texts] == ["all strategies failed"]


def test_zeros_are_seen_at_the_lower_edge_of_a_log_axis():
    """One of three seeds ends at zero, and so does the lower bound of the band. Of another strategy all seeds do."""
    results = make_results(
        make_pair("some", "p", [[1e4, 1.0, 1e-3], [1e4, 1.0, 2e-3], [1e4, 1.0, 0.0]]),
        make_pair("all", "p", [[1e4, 1.0, 0.0]] * 3),
        num_seeds=3,
    )
    figure = results.plot()
    draw(figure)
    axis = figure.axes[0]
    low, high = axis.get_ylim()
    assert axis.get_yscale() == "log"
    assert low > 0
    for line in axis.lines:
        assert low < line.get_ydata().min() <= line.get_ydata().max() < high
    assert lines(axis)["all"].get_ydata()[-1] < lines(axis)["some"].get_ydata()[-1]
    for band in axis.collections:
        edge = band.get_paths()[0].vertices[:, 1]
        assert low < edge.min() <= edge.max() < high
    assert "; 0 is drawn at the lower edge" in caption(figure)


def test_what_underflows_does_not_flatten_the_others():
    figure = make_results(make_pair("a", "p", [[1.0, 1e-300]] * 2), make_pair("b", "p", [[1.0, 0.5]] * 2)).plot()
    low, high = figure.axes[0].get_ylim()
    assert high / low < 1e24
    assert "up to 1e-21 are drawn at the lower edge" in caption(figure)


@pytest.mark.parametrize("maximize", [False, True])
def test_a_line_that_diverges_does_not_flatten_the_others(maximize):
    sign = -1 if maximize else 1
    good, bad = sign * np.array([[3.0, 2.0, 1.0]] * 2), sign * np.array([[3.0, 1e9, 1e30]] * 2)
    figure = make_results(
        make_pair("a", "p", good, maximize=maximize), make_pair("b", "p", bad, maximize=maximize)
    ).plot()
    axis = figure.axes[0]
    ends = sign * np.array(axis.get_ylim())
    assert 0 < ends.min() < 1
    assert 7 < ends.max() < (10 if maximize else 400)
    values = sign * lines(axis)["b"].get_ydata()
    # On a log axis: a hundred times the start. Else: twice as far beyond the start as the best value is from it.
    assert values.max() == pytest.approx(7 if maximize else 300)
    assert f"are drawn at the {'lower' if maximize else 'upper'} edge" in caption(figure)


def test_times_of_different_orders_are_on_a_log_axis():
    """Half way from the start to the first scoring, a curve is half way between their scores."""
    pairs = [make_pair(name, "p", curves_to(1.0, 1.0), seconds=s) for name, s in (("quick", 1.0), ("slow", 100.0))]
    _, axis = make_results(*pairs).plot().axes
    assert axis.get_xscale() == "log"
    slow = lines(axis)["slow"]
    assert slow.get_xdata()[-1] == pytest.approx(100)
    assert axis.get_xlim() == pytest.approx((1 / 99, 100))
    at = np.interp([12.5, 25.0, 50.0, 75.0], slow.get_xdata(), slow.get_ydata())
    np.testing.assert_allclose(at, [8, 7, 5, 3], rtol=0.02)


def test_infinite_scores_are_drawn_at_the_edge():
    figure = make_results(make_pair("a", "p", [[3.0, 2.0]] * 2), make_pair("b", "p", [[3.0, np.inf]] * 2)).plot()
    draw(figure)
    assert lines(figure.axes[0])["b"].get_ydata()[-1] == 3
    assert "are drawn at the upper edge" in caption(figure)


def test_the_best_of_many_are_in_colour_on_each_problem():
    results = make_many(20)
    figure = results.plot(top=4)
    draw(figure)
    left, right, below, _ = figure.axes
    for axis in (left, right):
        assert lines(axis).keys() == {"s0", "s1", "s2", "s3"}
    assert lines(below).keys() == {"s16", "s17", "s18", "s19"}
    grey = [line for line in left.lines if line not in lines(left).values()]
    assert len(grey) == 16
    assert len({line.get_color() for line in grey}) == 1
    assert max(line.get_zorder() for line in grey) < min(line.get_zorder() for line in lines(left).values())
    assert len(left.collections) == 4  # bands
    assert boxes(left).keys() == {"s0", "s1", "s2", "s3", "16 others"}
    assert len(results.plot(top=20).axes[0].collections) == 20
    with pytest.raises(ValueError, match="top must be at least 1"):
        results.plot(top=0)


def test_strategies_that_stand_out_look_different():
    """The best strategy of each problem gets one of the first looks, the same in each figure of the results."""
    results = make_many(20)
    figure, part = results.plot(top=10), results.plot("q", top=2)
    colors = [lines(figure.axes[i])[name].get_color() for i, name in ((0, "s0"), (2, "s19"))]
    assert colors[0] != colors[1]
    assert lines(part.axes[0])["s19"].get_color() == colors[1]
    for axis in figure.axes[::2]:
        looks = [(x.get_color(), str(x.get_linestyle()), x.get_marker()) for x in lines(axis).values()]
        assert len(set(looks)) == len(looks) == 10


def test_twelve_are_not_many():
    figure = make_many(12).plot("p")
    assert len(lines(figure.axes[0])) == 12
    assert len(boxes(figure.axes[0])) == 12


def test_names_do_not_overlap_and_keep_the_order_of_their_lines():
    figure = make_many(20).plot()
    draw(figure)
    for axis in figure.axes[::2]:
        assert len(boxes(axis)) == 11
        assert overlaps(boxes(axis)) == []
        ends = [line.get_ydata()[-1] for name in boxes(axis) if (line := lines(axis).get(name))]
        assert ends == sorted(ends)
        outside = axis.get_window_extent().x1
        assert all(box.get_window_extent().x0 > outside for box in boxes(axis).values())
        inside = axis.get_window_extent()
        assert all(inside.y0 - 1 < b.get_window_extent().y0 < inside.y1 for b in boxes(axis).values())


def test_names_that_are_too_wide_are_in_a_legend():
    names = ["a" * 60, "b"]
    figure = make_results(*(make_pair(name, "p", curves_to(1.0, 2.0)) for name in names)).plot()
    draw(figure)
    assert boxes(figure.axes[0]) == {}
    assert [len(name) for name in legend(figure)] == [44, 1]


def test_small_multiples_have_a_panel_per_strategy():
    results = make_many(7)
    figure = results.plot("p", small_multiples=True)
    draw(figure)
    panels = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in panels] == [f"s{i}" for i in range(7)]
    assert len({axis.get_ylim() for axis in panels}) == 1
    for axis in panels:
        assert len(axis.lines) == 7
        (mine,) = [line for line in axis.lines if line.get_label() == axis.get_title()]
        assert len({line.get_color() for line in axis.lines}) == 2
        expected = interquartile_mean(results.scores(axis.get_title(), "p"))
        assert mine.get_ydata()[-1] == pytest.approx(expected)
    assert len(results.plot(small_multiples=True).axes) == 20


@pytest.mark.filterwarnings("ignore:Glyph")
def test_labels_are_text():
    label = "a $\\frac$ \x1b[1m\n_b"
    results = make_results(make_pair(label, label, curves_to(1.0, 2.0)), make_pair("b", label, [], error="no"))
    for figure in (results.plot(), results.plot(small_multiples=True)):
        figure.draw_without_rendering()
    (name,) = boxes(results.plot().axes[0])
    assert name == "a $\\frac$ \N{REPLACEMENT CHARACTER}[1m _b"
