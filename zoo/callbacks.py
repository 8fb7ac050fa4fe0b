"""Ready-made callbacks for `zoo.run(callback=...)`. `zoo.Callback` describes the interface."""

import json
import pathlib
import uuid
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax

from zoo.loop.callbacks import Callback
from zoo.loop.files import as_folder
from zoo.loop.progress import Progress
from zoo.loop.result import RunResult

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


class TensorBoard(Callback):
    """Writes a run for TensorBoard: `tensorboard --logdir FOLDER` shows it while it runs.

    For every generation it writes `fitness/best`, `fitness/mean`, `fitness/std`, `fitness/failed`, `steps`, and
    `aux/<name>` for what the problem reports besides fitness. At each call it writes `score/<name>`,
    `search/<name>` (the diagnosis) and `fitness/best_so_far`; at the start, the settings as text. The step is the
    generation. A run that goes on from a checkpoint or a result continues its curves in the same folder. If several
    processes share the run, the first one writes.

    Other tools take a few lines:

    >>> import zoo
    >>> class Sent(zoo.Callback):
    ...     def start(self, facts):
    ...         self.numbers = []  # such as wandb.init(config=facts)
    ...     def __call__(self, progress):
    ...         self.numbers.append(progress.metrics)  # such as wandb.log(progress.metrics, step=progress.generation)
    >>> sent = Sent()
    >>> result = zoo.run("snes", "blackbox/sphere", num_generations=4, num_scores=2, callback=sent)
    >>> sent.numbers[-1] == result.metrics
    True

    Args:
        folder: The folder of the run, which is made if it is missing. Each run should have its own.

    Raises:
        ModuleNotFoundError: If the package tensorboardX is not installed.
        ValueError: If the folder cannot be made.
    """

    def __init__(self, folder: str | pathlib.Path):
        self.folder = as_folder(folder, "TensorBoard(folder)").absolute()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"TensorBoard(folder) cannot make {self.folder}: {error.strerror}. Choose another folder."
            ) from error
        self._make_writer = _writer_class()
        self._writer: SummaryWriter | None = None

    def start(self, facts: Mapping[str, Any]) -> None:
        """Opens a file, and writes the settings of the run into it as text."""
        if jax.process_index() != 0:
            return
        # What an earlier process wrote of later generations is dropped from the curves, because it comes again.
        purged, suffix = facts["generation"] + 1, f".{uuid.uuid4().hex[:8]}"  # names of files count seconds only
        self._writer = self._make_writer(str(self.folder), purge_step=purged, filename_suffix=suffix)
        for name in ("strategy", "problem", "budget", "versions"):
            text = json.dumps(facts[name], indent=2)
            self._writer.add_text(f"run/{name}", f"```\n{text}\n```", facts["generation"])

    def __call__(self, progress: Progress) -> None:
        """Writes the generations since the previous call, and the state of the search."""
        if self._writer is None:
            return
        history = progress.history
        tags = {name: f"fitness/{name.removesuffix('_fitness')}" for name in history if name.endswith("_fitness")}
        tags |= {"failed": "fitness/failed", "steps": "steps", **{n: n for n in history if n.startswith("aux/")}}
        columns = [history[name].tolist() for name in tags]
        for generation, *row in zip(history["generation"].tolist(), *columns, strict=True):
            self._add(zip(tags.values(), row, strict=True), generation)
        latest = {"fitness/best_so_far": progress.best_fitness}
        latest |= {f"score/{name}": value for name, value in progress.metrics.items()}
        latest |= {f"search/{name}": value for name, value in progress.diagnosis.items() if name != "failed"}
        self._add(latest.items(), progress.generation)
        self._writer.flush()

    def _add(self, values: Iterable[tuple[str, float]], generation: int) -> None:
        """Writes several values as one event, which takes a fraction of the time of an event for each."""
        from tensorboardX.proto import summary_pb2

        made: Any = summary_pb2  # its classes are made while it is imported, which the type checker does not see
        if self._writer is not None and self._writer.file_writer is not None:
            each = [made.Summary.Value(tag=tag, simple_value=value) for tag, value in values]
            self._writer.file_writer.add_summary(made.Summary(value=each), generation)

    def end(self, result: RunResult | None) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _writer_class() -> "type[SummaryWriter]":
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"zoo.callbacks.TensorBoard needs a package that is not installed, {error.name}: pip install "
            "es-zoo[tensorboard]."
        ) from error
    return SummaryWriter
