"""How results show themselves in a notebook: as a block of HTML, on the background that the notebook has."""

import base64
import html
from collections.abc import Callable
from typing import Any


def notebook_block(text: str, *parts: Callable[[], str]) -> str:
    """Returns HTML for a result.

    Args:
        text: What is printed of the result elsewhere. Its first line becomes the heading.
        *parts: Functions that return further HTML. If one of them fails, the block says so in its place: a notebook
            shows what is there.
    """
    heading, *lines = text.strip("<>").splitlines() or [""]
    blocks = [f"<p><strong>{html.escape(heading)}</strong></p>"]
    blocks += [f"<div>{html.escape(line.strip())}</div>" for line in lines]
    for part in parts:
        try:
            blocks.append(part())
        except Exception as error:
            blocks.append(f"<div>not shown: {html.escape(f'{type(error).__name__}: {error}')}</div>")
    return "<div>\n" + "\n".join(blocks) + "\n</div>"


def picture(figure: Any) -> str:
    """Returns a `NotebookFigure` as HTML."""
    png, size = figure._repr_png_()
    data, width = base64.b64encode(png).decode(), size["width"]
    return f'<img style="max-width: 100%; width: {width}px" alt="figure" src="data:image/png;base64,{data}">'
