"""Worker processes that evaluate tasks, and may die of them.

Pools that share queues among their workers break, or hang, when one of them dies at the wrong moment. Here a thread
waits for each worker's answer on a stream of its own: the end of the stream is the end of the worker, and nothing is
polled or shared.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import pickle
import queue
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import Any

from zoo.host import worker
from zoo.host.interrupts import check_interrupt, stopped_by_interrupt
from zoo.host.worker import Answer, Task, failure

_MAX_OPEN = 4  # pools that keep their workers; a sweep over many problems would end with all of theirs
_open: list["ProcessPool"] = []  # the one used last comes last
_open_lock = threading.Lock()


class ProcessPool:
    """A function in worker processes, which start when they are needed and end with the pool or the program.

    Args:
        fn: The function; it is sent with cloudpickle, so that lambdas and closures will do.
        num_processes: How many.

    Raises:
        TypeError: If the function cannot be pickled.
    """

    def __init__(self, fn: Any, num_processes: int):
        path = [entry for entry in sys.path if isinstance(entry, str)]
        self._hello = pickle.dumps((path, _pickled(fn, f"The function {fn!r}")))
        self._lock = threading.Lock()  # one batch of tasks at a time: two would share the cores anyway
        self._workers = [_Worker(self._hello) for _ in range(num_processes)]
        for process in self._workers:
            weakref.finalize(self, process.stop)  # also runs at exit

    def map(self, tasks: Sequence[Task], timeout: float | None) -> list[Answer]:
        """Returns the answers of tasks; one that kills its worker or takes too long is an answer with an error.

        Args:
            tasks: The tasks.
            timeout: Seconds per task, not counting the time to start a worker.
        """
        with self._lock:
            self._opened()
            idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
            for process in self._workers:
                idle.put(process)

            def call(task: Task) -> Answer:
                process = idle.get()
                try:
                    check_interrupt()
                    return process.call(task, timeout)
                finally:
                    idle.put(process)

            with (
                concurrent.futures.ThreadPoolExecutor(len(self._workers)) as threads,
                stopped_by_interrupt(self._stop),
            ):
                try:
                    answers = list(threads.map(call, tasks))
                    check_interrupt()
                    return answers
                except BaseException:  # an interrupt: nobody waits for what is still being computed
                    threads.shutdown(wait=False, cancel_futures=True)
                    self._stop()
                    raise

    def _opened(self) -> None:
        """Makes this the pool used last, and ends the workers of pools that have not been used for long."""
        with _open_lock:
            if self in _open:
                _open.remove(self)
            _open.append(self)
            for pool in _open[:-_MAX_OPEN]:
                if pool._lock.acquire(blocking=False):  # not one that another thread is using
                    pool._stop()
                    pool._lock.release()
                    _open.remove(pool)

    def _stop(self) -> None:
        for process in self._workers:
            process.stop()


class _Worker:
    """One worker process, started and replaced as needed."""

    def __init__(self, hello: bytes):
        self._hello = hello
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, task: Task, timeout: float | None) -> Answer:
        try:
            data = _pickled(tuple(task), "A member of the population")
            process = self._started()
        except (TypeError, OSError, EOFError) as error:
            return failure(task, f"{type(error).__name__}: {error}")
        timer = _Timer(timeout, process)
        try:
            worker.send(process.stdin, data)  # pyright: ignore[reportArgumentType]
            answer = pickle.loads(worker.receive(process.stdout))  # pyright: ignore[reportArgumentType]
        except (OSError, EOFError):
            answer = None
        finally:
            timer.stop()
        if answer is None or timer.fired:
            self.stop()
        if answer is None:
            answer = f"TimeoutError: no result after {timeout:g} s." if timer.fired else _obituary(process)
        return failure(task, answer) if isinstance(answer, str) else Answer(*answer)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        _kill(process)
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # the rest of a task that nobody reads
                stream.close()  # pyright: ignore[reportOptionalMemberAccess]
        process.wait()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is not None:  # it died since its last answer
            self.stop()
        if self._process is None:
            self._process = process = subprocess.Popen(
                [sys.executable, "-P", pathlib.Path(worker.__file__)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=_environment(),
                start_new_session=True,  # so that what the function starts can be ended with it
            )
            try:
                worker.send(process.stdin, self._hello)  # pyright: ignore[reportArgumentType]
                worker.receive(process.stdout)  # pyright: ignore[reportArgumentType]
            except (OSError, EOFError):
                self.stop()
                raise EOFError(f"A worker process did not start: {_obituary(process)}") from None
        return self._process


class _Timer:
    """Kills a process after a time, unless it is stopped before."""

    def __init__(self, seconds: float | None, process: "subprocess.Popen[bytes]"):
        self.fired = False
        self._process = process
        self._timer = None if seconds is None else threading.Timer(seconds, self._fire)
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()  # from here on `fired` stays as it is

    def _fire(self) -> None:
        self.fired = True
        _kill(self._process)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process and those that it started, which would keep its streams open."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _environment() -> dict[str, str]:
    """Returns the workers' environment: one thread each, and accelerators left to the parent."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    return {**threads, **os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags.strip()}


def _pickled(value: Any, what: str) -> bytes:
    from zoo.host.pickling import dumps_function

    try:
        return dumps_function(value)
    except Exception as error:  # whatever a __reduce__ or __getstate__ raises
        raise TypeError(
            f"{what} cannot be sent to worker processes: {type(error).__name__}: {error}. Make what cannot be pickled "
            "inside the function (once, in a functools.cache), or leave out num_processes."
        ) from error


def _obituary(process: "subprocess.Popen[bytes]") -> str:
    code = process.wait()
    signals = {s.value: s.name for s in signal.Signals}
    cause = f"by {signals.get(-code, 'a signal')}" if code < 0 else f"with exit code {code}"
    return f"ChildProcessError: the worker process ended {cause}."
