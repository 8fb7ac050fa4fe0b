"""Figures that a notebook shows.

matplotlib's own figures are shown in a notebook only if pyplot made them, or after pyplot was imported there.
"""

import io

from matplotlib.figure import Figure

_SCALE = 2  # pixels of the picture per pixel on the screen, for sharp lines on fine screens


class NotebookFigure(Figure):
    """A matplotlib figure that a notebook shows where it is the value of a cell."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Returns a picture, and the width and height in pixels at which a notebook shows it."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=_SCALE * self.dpi)
        width, height = self.get_size_inches() * self.dpi
        return file.getvalue(), {"width": int(width), "height": int(height)}
