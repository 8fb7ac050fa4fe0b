"""Worker processes that evaluate tasks. A task may kill its worker.

Pools whose workers share queues break or hang if a worker dies at the wrong moment. This pool shares nothing. One
thread per worker waits for answers on that worker's own stream. If the worker dies, the stream ends.
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

_MAX_OPEN = 4  # pools that keep their workers, so that a sweep over many problems does not keep all of theirs
_open: list["ProcessPool"] = []  # in the order of their last use
_open_lock = threading.Lock()


class ProcessPool:
    """Worker processes that call one function. They start when needed and end with the pool or the program.

    Args:
        fn: The function. cloudpickle sends it, so it may be a lambda or a closure.
        num_processes: The number of workers.

    Raises:
        TypeError: If the function cannot be pickled.
    """

    def __init__(self, fn: Any, num_processes: int):
        path = [entry for entry in sys.path if isinstance(entry, str)]
        self._hello = pickle.dumps((path, _pickled(fn, f"The function {fn!r}")))
        self._lock = threading.Lock()  # one batch of tasks at a time, as two would share the cores
        self._workers = [_Worker(self._hello) for _ in range(num_processes)]
        for process in self._workers:
            weakref.finalize(self, process.stop)  # also runs at exit

    def map(self, tasks: Sequence[Task], timeout: float | None) -> list[Answer]:
        """Returns the answers of tasks. A task that kills its worker or takes too long has an answer with an error.

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
                except BaseException:  # an interrupt: the running tasks are abandoned
                    threads.shutdown(wait=False, cancel_futures=True)
                    self._stop()
                    raise

    def _opened(self) -> None:
        """Marks this pool as the last one used, and ends the workers of all but the last `_MAX_OPEN` pools."""
        with _open_lock:
            if self in _open:
                _open.remove(self)
            _open.append(self)
            for pool in _open[:-_MAX_OPEN]:
                if pool._lock.acquire(blocking=False):  # skips a pool that another thread uses
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
            with contextlib.suppress(OSError):  # unsent data of a task
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
                start_new_session=True,  # so that processes that the function starts end with it
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
            self._timer.join()  # from here on `fired` does not change

    def _fire(self) -> None:
        self.fired = True
        _kill(self._process)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process and the processes that it started, which would keep its streams open."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _environment() -> dict[str, str]:
    """Returns the environment of workers: one thread each and no accelerator."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    return {**threads, **os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags.strip()}


def _pickled(value: Any, what: str) -> bytes:
    from zoo.host.pickling import dumps_function

    try:
        return dumps_function(value)
    except Exception as error:  # __reduce__ and __getstate__ may raise anything
        raise TypeError(
            f"{what} cannot be sent to worker processes: {type(error).__name__}: {error}. Create what cannot be "
            "pickled inside the function (once, by functools.cache), or leave out num_processes."
        ) from error


def _obituary(process: "subprocess.Popen[bytes]") -> str:
    code = process.wait()
    signals = {s.value: s.name for s in signal.Signals}
    cause = f"by {signals.get(-code, 'a signal')}" if code < 0 else f"with exit code {code}"
    return f"ChildProcessError: the worker process ended {cause}."
