"""Lines differ by colour for most readers, and without colour for all; names and legends do not overlap."""

import itertools

import numpy as np
import pytest

from tests.figures.drawn import boxes, draw, legend, overlaps
from zoo.figures.labels import add_legend, name_lines, spread
from zoo.figures.scales import choose_scale, robust_scale
from zoo.figures.style import PALETTE, dress, line_styles, make_figure, plain

# Machado, Oliveira, Fernandes 2009, doi 10.1109/TVCG.2009.113, table 1, severity 1: of linear red, green and blue.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # sRGB, D65


def linear(color):
    """Returns red, green and blue of a colour "#rrggbb", in light rather than in sRGB."""
    coded = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def lab(light):
    """Returns CIELAB coordinates."""
    t = XYZ @ np.clip(light, 0, 1) / (XYZ @ np.ones(3))
    x, y, z = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
def test_colours_differ_for_the_colour_blind(vision):
    """A distance of 2.3 can just be noticed. Okabe and Ito's colours without yellow and sky blue have 17.5."""
    seen = [lab(np.asarray(VISION[vision]) @ linear(color)) for color in PALETTE]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 20


def test_colours_have_contrast_to_white():
    """The web's guidelines ask for 3 (WCAG 2.1, 1.4.11)."""
    assert min(1.05 / (XYZ[1] @ linear(color) + 0.05) for color in PALETTE) > 2.99


def test_lines_differ_without_colour():
    styles = line_styles(map(str, range(40)))
    assert len({(str(style["linestyle"]), style["marker"]) for style in styles.values()}) == 40
    assert {str(style["linestyle"]) for style in [*styles.values()][: len(PALETTE)]} == {"-"}
    for one, other in itertools.combinations(styles.values(), 2):
        if one["color"] == other["color"]:
            assert one["marker"] != other["marker"]
    assert line_styles(["b", "a", "b"]).keys() == {"b", "a"}


def test_text_is_plain():
    assert plain(" a\n b\x1b[1m$") == "a b\N{REPLACEMENT CHARACTER}[1m$"
    assert plain("abcdefghij", 7) == "abc\N{HORIZONTAL ELLIPSIS}hij"


# Names


def test_positions_are_spread_as_little_as_possible():
    """Compares with a quadratic program, solved by brute force on a grid."""
    np.testing.assert_allclose(spread([1.0, 5.0, 9.0], 2, 10), [1, 5, 9])
    np.testing.assert_allclose(spread([5.0, 5.0, 5.0], 2, 10), [3, 5, 7])
    np.testing.assert_allclose(spread([0.0, 0.0, 9.9], 2, 10), [1, 3, 9])
    wanted, steps = np.array([2.0, 2.5, 3.0, 7.0]), np.arange(1, 9.01, 0.25)
    found = min(
        (p for p in itertools.product(steps, repeat=4) if min(np.diff(p)) >= 2), key=lambda p: sum((p - wanted) ** 2)
    )
    np.testing.assert_allclose(spread(wanted, 2, 10), found, atol=0.25)
    assert spread([], 2, 10).shape == (0,)


@pytest.mark.parametrize("num_lines", [2, 30])
def test_names_that_do_not_fit_are_in_a_legend(num_lines):
    figure = make_figure(3)
    axis = figure.subplots()
    styles = line_styles(f"line {i}" for i in range(num_lines))
    lines = {name: axis.plot([0, 1], [0, i], **style)[0] for i, (name, style) in enumerate(styles.items())}
    lines["none"] = axis.plot([0, 1], [np.nan, np.nan])[0]
    dress(axis)
    height = axis.get_window_extent().height
    name_lines(figure, [axis], [lines])
    draw(figure)
    assert (len(boxes(axis)), len(legend(figure))) == ((3, 0) if num_lines == 2 else (0, 31))
    assert overlaps(boxes(axis)) == []
    if num_lines == 2:
        assert list(boxes(axis))[-1] == "line 1"
    else:  # the figure grew, and the axes have kept about their height
        assert axis.get_window_extent().height > 0.75 * height
        assert figure.legends[0].get_window_extent().y1 <= figure.bbox.y1
        assert figure.legends[0].get_window_extent().x0 >= 0


def test_no_legend_of_nothing():
    figure = make_figure(3)
    add_legend(figure, {})
    assert figure.legends == []


# Scales


def test_scales():
    assert not choose_scale([], [], maximize=False).is_log
    assert choose_scale([1.0, 1e-4], [1.0], maximize=False).is_log
    assert not choose_scale([1.0, 1e-4], [1.0], maximize=True).is_log
    scale = choose_scale([2e3, 1.0, 0.0, np.nan], [2e3], maximize=False)
    np.testing.assert_allclose(scale.clip([2e3, 0.0, np.nan]), [2e3, 0.1, np.nan])
    assert scale.notes([0.0, 1.0]) == ("0 is drawn at the lower edge", "")
    # A start that nothing improves on says nothing of what is far off.
    assert choose_scale([5.0, 100.0], [5.0], maximize=False).high == np.inf


@pytest.mark.parametrize("maximize", [False, True])
def test_settings_that_diverge_are_at_the_edge(maximize):
    scores = np.array([1.0, 1.2, 1.5, 1.7, 2.0, 1e9])
    scale = robust_scale(-scores if maximize else scores, maximize=maximize)
    assert (-scale.low if maximize else scale.high) == pytest.approx(1.6 + 4 * 0.6)
    assert robust_scale([1.0, 2.0, 3.0], maximize=maximize).clip([1.0, 3.0]).tolist() == [1, 3]
    if not maximize:
        decades = robust_scale([1e-6, 1e-3, 1.0, 10.0, 1e30], maximize=False)
        assert decades.is_log
        assert decades.high == pytest.approx(1e3)
