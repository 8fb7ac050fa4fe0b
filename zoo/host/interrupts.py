"""What a function of the host raises inside a JAX program, and Ctrl-C while it runs.

JAX makes a text of whatever a callback raises, also of a `KeyboardInterrupt`. And where it calls back from a thread of
its own, Python does not act on Ctrl-C before the program has ended. `native_errors` mends both.
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

_raised: collections.deque[BaseException] = collections.deque(maxlen=16)  # by host functions, since `native_errors`
_interrupted = threading.Event()
_stops: list[Callable[[], object]] = []  # what ends the work of host functions
_num_open = 0  # calls of `native_errors`; several threads may each run something
_lock = threading.Lock()
_JAX_LOG = "jax._src.callback"  # a logger that prints what a callback raises; where it has another name, it is printed


@contextlib.contextmanager
def native_errors() -> Iterator[None]:
    """Raises what a host function raised, with its type and traceback, in place of the error that JAX makes of it.

    In the main thread, Ctrl-C ends also what host functions compute in threads of JAX.
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
    """Remembers what is raised here, in a callback of JAX, for `native_errors` to raise it."""
    try:
        yield
    except BaseException as error:
        if _num_open:
            _raised.append(error)
        elif isinstance(error, KeyboardInterrupt):
            # A program of the user's own, of which JAX raises an error that may be caught as any other. So the
            # interrupt comes again when that is on its way.
            again = threading.Timer(0.1, _thread.interrupt_main)
            again.daemon = True
            again.start()
        raise


@contextlib.contextmanager
def stopped_by_interrupt(stop: Callable[[], object]) -> Iterator[None]:
    """Calls `stop` when Ctrl-C is pressed meanwhile and Python cannot act on it."""
    _stops.append(stop)
    try:
        yield
    finally:
        _stops.remove(stop)


def check_interrupt() -> None:
    """Raises a `KeyboardInterrupt` if there was one; in the main thread Python does so by itself."""
    if _interrupted.is_set() and threading.current_thread() is not threading.main_thread():
        raise KeyboardInterrupt


@contextlib.contextmanager
def _watched_interrupts() -> Iterator[None]:
    """Sets `_interrupted` at once when Ctrl-C is pressed, unless the user's program handles it in its own way."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    there, here = socket.socketpair()
    there.setblocking(False)
    before = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)  # to which signals are written, by number
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
    """Whether JAX made an error of another one, whose type and message are in its text."""
    return error is not cause and type(cause).__name__ in str(error) and str(cause) in str(error)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether the log has something to say: not of an error that will be raised."""
    return record.exc_info is None or all(each is not record.exc_info[1] for each in _raised)
