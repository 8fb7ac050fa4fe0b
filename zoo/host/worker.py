"""Evaluates members of a population. Worker processes run this file as a script.

The script does not import JAX or the rest of the zoo, because most functions do not need them. It does not import the
user's script either, so that script needs no `if __name__ == "__main__"`. It exchanges pickled frames on its standard
streams: first the search path and the function, answered by "ready", then tasks, each answered by an `Answer` or by the
text of an error.

When the parent ends in any way, its end of standard input closes. The thread that reads there then ends this process
and the processes that it started, even in the middle of a task.
"""

import contextlib
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple


class Task(NamedTuple):
    """One call of the user's function. A worker is sent the fields as a plain tuple.

    Attributes:
        arguments: The arguments of the function.
        size: The number of members, which are stacked along the leading axis of the arguments. With `None`, there is
            one member and no such axis.
        returns_steps: Whether the function returns a number of steps in addition to fitness.
    """

    arguments: tuple[Any, ...]
    size: int | None
    returns_steps: bool


class Answer(NamedTuple):
    """The result of a task.

    Attributes:
        fitness: `[size or 1]`. NaN if there is an error.
        steps: `[size or 1]` problem steps.
        error: The error that made the whole task fail, with its traceback. `None` if it did not fail.
    """

    fitness: Any
    steps: Any
    error: str | None


def evaluate(fn: Callable[..., Any], task: Task) -> Answer:
    """Calls the function and checks its result. An error of the function, except an interrupt, becomes the answer."""
    try:
        return _checked(fn(*task.arguments), task)
    except (Exception, SystemExit) as error:  # a KeyboardInterrupt passes
        # The traceback begins after the frame of this function.
        lines = traceback.format_exception(type(error), error, error.__traceback__ and error.__traceback__.tb_next)
        return failure(task, "".join(lines).strip())


def failure(task: Task, error: str) -> Answer:
    """Returns the answer of a task that failed as a whole. Each of its members counts as one step."""
    import numpy as np

    size = task.size or 1
    return Answer(np.full(size, np.nan), np.ones(size, np.int64), error)


def _checked(result: Any, task: Task) -> Answer:
    import numpy as np  # late: the environment is set by now, and senders of tasks do not need it

    batch = () if task.size is None else (task.size,)
    steps: Any = np.ones(batch, np.int64)
    if task.returns_steps:
        if not (isinstance(result, (tuple, list)) and len(result) == 2):
            raise TypeError(
                f"The function must return (fitness, num_steps), because returns_steps=True, got {result!r}."
            )
        result, steps = result
    fitness, steps = np.asarray(result), np.asarray(steps)
    for name, array, kinds in (("fitness", fitness, "biuf"), ("num_steps", steps, "biu")):
        if array.shape != batch or array.dtype.kind not in kinds:
            expected = "a number" if task.size is None else f"an array of numbers of shape {batch}, one per member"
            got = f"shape {array.shape}" if array.dtype.kind in kinds else f"{array.dtype} {array!r:.80}"
            raise TypeError(f"The function must return {expected} ({name}), got {got}.")
    return Answer(fitness.reshape(-1).astype(np.float64), steps.reshape(-1).astype(np.int64), None)


def send(stream: BinaryIO, data: bytes) -> None:
    """Writes one frame."""
    stream.write(len(data).to_bytes(8, "little"))
    stream.write(data)
    stream.flush()


def receive(stream: BinaryIO) -> bytes:
    """Reads one frame.

    Raises:
        EOFError: If the other process has ended.
    """
    size = stream.read(8)
    data = stream.read(int.from_bytes(size, "little")) if len(size) == 8 else b""
    if len(size) < 8 or len(data) < int.from_bytes(size, "little"):
        raise EOFError
    return data


def main() -> None:
    """Serves tasks until the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the parent ends this one
    # The streams carry only frames. The function prints to standard error and reads from an empty input.
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for target, args in ((_read, (source, frames)), (_watch, (os.getppid(),))):
        threading.Thread(target=target, args=args, daemon=True).start()
    path, payload = pickle.loads(frames.get())
    sys.path[:] = path
    try:
        fn, unusable = pickle.loads(payload), None
    except BaseException:
        fn, unusable = None, f"The function cannot be loaded in a worker process.\n{traceback.format_exc()}"
    send(sink, b"ready")
    while True:
        data = frames.get()
        try:
            answer = unusable if fn is None else tuple(evaluate(fn, Task(*pickle.loads(data))))
        except BaseException:  # arguments that cannot be loaded, or an error that is not an Exception
            answer = traceback.format_exc()
        send(sink, pickle.dumps(answer))


def _read(source: BinaryIO, frames: queue.SimpleQueue[bytes]) -> None:
    """Reads frames until the parent ends."""
    with contextlib.suppress(EOFError):
        while True:
            frames.put(receive(source))
    _end()


def _watch(parent: int) -> None:
    """Waits for the end of the parent. A fork of the parent may live on and keep the other end of the stream open."""
    while os.getppid() == parent:
        time.sleep(1)
    _end()


def _end() -> None:
    """Ends this process and the processes that it started."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():  # this process leads the group
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent ended while an answer was sent
        main()
    _end()
