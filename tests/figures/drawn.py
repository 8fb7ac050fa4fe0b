"""Reads figures: the names beside lines, and where they are."""

import warnings

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.offsetbox import AnnotationBbox, TextArea


def draw(figure):
    """Draws a figure, and fails on any warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FigureCanvasAgg(figure).draw()


def boxes(axis):
    """Returns the names beside the lines of an axis, as artists by name, from the lowest to the highest."""
    found = [artist for artist in axis.get_children() if isinstance(artist, AnnotationBbox)]
    texts = [(text, box.offsetbox) for box in found for text in box.offsetbox.get_children()]
    named = {text.get_text(): box for text, box in texts if isinstance(text, TextArea)}
    return dict(sorted(named.items(), key=lambda item: item[1].get_window_extent().y0))


def caption(figure):
    """Returns what is written below a figure, on one line."""
    return figure.get_supxlabel().replace("\n", " ")


def legend(figure):
    """Returns the names in the legend of a figure."""
    return [text.get_text() for text in figure.legends[0].get_texts()] if figure.legends else []


def lines(axis):
    """Returns the lines of strategies by name, without those in grey."""
    return {line.get_label(): line for line in axis.lines if line.get_marker() not in ("None", "x")}


def overlaps(boxes):
    """Returns the pairs of names that overlap."""
    extents = {name: box.get_window_extent() for name, box in boxes.items()}
    return [(a, b) for a in extents for b in extents if a < b and extents[a].overlaps(extents[b])]
