"""Files and folders that are written whole or not at all, whatever interrupts the writing."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file: a reader sees the old text or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


@contextlib.contextmanager
def replaced_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty folder to fill, which then takes the place of `folder`; nothing changes if filling it fails."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
