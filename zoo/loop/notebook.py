"""A line of progress in a notebook that has no widgets, where a bar of `rich` shows a warning and nothing else."""

import contextlib
import importlib
import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_INTERVAL = 0.5  # seconds between two updates
_BLOCKS = 20  # characters of the bar


def lacks_widgets() -> bool:
    """Whether this process is the kernel of a notebook in which the package `ipywidgets` is not installed."""
    ipython = sys.modules.get("IPython")  # a kernel has imported it
    shell = None if ipython is None else ipython.get_ipython()
    is_notebook = type(shell).__name__ == "ZMQInteractiveShell" or "google.colab" in str(type(shell))
    return is_notebook and importlib.util.find_spec("ipywidgets") is None


@contextlib.contextmanager
def notebook_line(title: str, total: int, status: object, *, is_count: bool) -> Iterator[Callable[[int, str], None]]:
    """Yields `show(done, status)`, which updates one line of text below the cell; see `progress_bar`."""
    display: Any = importlib.import_module("IPython.display").display  # it is no dependency

    since = time.perf_counter()
    now: dict[str, Any] = {"done": 0, "status": status}

    def text() -> dict[str, str]:
        done = now["done"]
        filled = min(_BLOCKS, _BLOCKS * done // max(total, 1))
        share = f"{done}/{total}" if is_count else f"{100 * done // max(total, 1)} %"
        seconds = time.perf_counter() - since
        line = f"{title}  {'█' * filled}{'░' * (_BLOCKS - filled)}  {share}  {seconds:.0f} s  {now['status']}"
        return {"text/plain": line.rstrip()}

    handle = display(text(), raw=True, display_id=True)
    is_over = threading.Event()

    def keep_fresh() -> None:
        while not is_over.wait(_INTERVAL):
            handle.update(text(), raw=True)

    thread = threading.Thread(target=keep_fresh, daemon=True)
    thread.start()

    def show(done: int, status: str) -> None:
        now.update(done=done, status=status)

    try:
        yield show
    finally:
        is_over.set()
        thread.join()
        handle.update(text(), raw=True)
