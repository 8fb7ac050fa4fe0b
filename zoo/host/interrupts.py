"""Errors of host functions inside a JAX program, and Ctrl-C while a host function runs.

JAX turns every exception of a callback into the text of another error, even a `KeyboardInterrupt`. If it calls back
from one of its own threads, Python does not act on Ctrl-C before the program has ended. `native_errors` solves both
problems.
"""

import _thread
import collections
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

_raised: collections.deque[BaseException] = collections.deque(maxlen=16)  # errors of host functions
_interrupted = threading.Event()
_stops: list[Callable[[], object]] = []  # functions that end the work of host functions
_num_open = 0  # open calls of `native_errors`, perhaps in several threads
_lock = threading.Lock()
_JAX_LOG = "jax._src.callback"  # the logger that prints errors of callbacks; under another name they are printed


@contextlib.contextmanager
def native_errors() -> Iterator[None]:
    """Raises the original error of a host function, with its type and traceback, in place of JAX's error.

    In the main thread, Ctrl-C also ends the work of host functions in JAX's threads.
    """
    global _num_open
    with _lock:
        _num_open += 1
    log = logging.getLogger(_JAX_LOG)
    log.addFilter(_is_news)
    try:
        with _watched_interrupts():
            yield
    except Exception as error:
        cause = next((each for each in reversed(_raised) if _is_made_of(error, each)), None)
        if cause is None:
            raise
        raise cause from None
    finally:
        with _lock:
            _num_open -= 1
            if not _num_open:
                log.removeFilter(_is_news)
                _raised.clear()
                _interrupted.clear()


@contextlib.contextmanager
def remembered_errors() -> Iterator[None]:
    """Remembers errors that are raised in a JAX callback, so that `native_errors` can raise them."""
    try:
        yield
    except BaseException as error:
        if _num_open:
            _raised.append(error)
        elif isinstance(error, KeyboardInterrupt):
            # This is a program of the user. JAX raises an error that the user may catch like any other. So the
            # interrupt is sent again shortly after.
            again = threading.Timer(0.1, _thread.interrupt_main)
            again.daemon = True
            again.start()
        raise


@contextlib.contextmanager
def stopped_by_interrupt(stop: Callable[[], object]) -> Iterator[None]:
    """Calls `stop` if Ctrl-C is pressed inside the block while Python cannot act on it."""
    _stops.append(stop)
    try:
        yield
    finally:
        _stops.remove(stop)


def check_interrupt() -> None:
    """Raises a `KeyboardInterrupt` if Ctrl-C was pressed. In the main thread Python does so by itself."""
    if _interrupted.is_set() and threading.current_thread() is not threading.main_thread():
        raise KeyboardInterrupt


@contextlib.contextmanager
def _watched_interrupts() -> Iterator[None]:
    """Sets `_interrupted` as soon as Ctrl-C is pressed, unless the user's program has its own signal handler."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    there, here = socket.socketpair()
    there.setblocking(False)
    before = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)  # Python writes signal numbers there
    watch = threading.Thread(target=_watch, args=(here, before), daemon=True)
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        there.close()
        watch.join()
        here.close()


def _watch(here: socket.socket, before: int) -> None:
    while numbers := here.recv(64):
        if before >= 0:
            with contextlib.suppress(OSError):
                os.write(before, numbers)
        if signal.SIGINT in numbers:
            _interrupted.set()
            for stop in tuple(_stops):
                stop()


def _is_made_of(error: Exception, cause: BaseException) -> bool:
    """Whether JAX made `error` from `cause`: the type and the message of `cause` are in its text."""
    return error is not cause and type(cause).__name__ in str(error) and str(cause) in str(error)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a log record is shown. Records of errors that will be raised are not."""
    return record.exc_info is None or all(each is not record.exc_info[1] for each in _raised)
