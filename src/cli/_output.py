"""Files and folders that appear under their names when they are complete, and not before."""

import contextlib
import glob
import io
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MARK = ".csraxis-"


@contextlib.contextmanager
def replaced(path: Path, *, overwrite: bool = False, folder: bool = False) -> Iterator[Path]:
    """A temporary name beside `path`, for the block to write to; after the block what is there gets its own name.

    The name says which process it belongs to. Nothing is left if the block raises; what a killed process has left is
    removed by the next one that writes to the same path.

    Parameters
    ----------
    path : Path
        A file, or a folder. Its own folder must exist.
    overwrite : bool
        Whether something may be there already. It stays there until the new one is complete.
    folder : bool
        Whether the temporary name is that of an empty folder instead of an empty file.

    Raises
    ------
    FileExistsError, OSError
        If something is there and may not be replaced, at the beginning or at the end; if the folder cannot be written.
    """
    _remove_leftovers(path)
    temporary = path.with_name(f"{path.name}{MARK}{socket.gethostname()}-{os.getpid()}")
    _check_absent(path, overwrite)
    (temporary.mkdir if folder else temporary.touch)()  # fails now where nothing can be written
    try:
        yield temporary
        _sync(temporary)
        _check_absent(path, overwrite)
        if path.is_dir():  # cannot be replaced by renaming; for a moment there is neither
            with _aside(path):
                temporary.rename(path)
        else:
            temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        _remove(temporary)


def _check_absent(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already; --overwrite replaces it")


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[None]:
    """A folder under another name, put back if the block raises, else removed."""
    old = path.with_name(f"{path.name}{MARK}{socket.gethostname()}-{os.getpid()}-old")
    path.rename(old)
    try:
        yield
    except BaseException:
        old.rename(path)
        raise
    _remove(old)


class Forgiving(io.FileIO):
    """A new file that takes all that is written to it; what went wrong is raised by `check`.

    For HDF5, which cannot close a file whose last parts it cannot write: it complains, and may crash the process.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+b")
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        """All of it, unless something went wrong before or does now."""
        left = memoryview(data).cast("B")
        size = len(left)
        with self._remembered():
            while left and self._error is None:
                left = left[super().write(left) :]
        return size

    def readinto(self, buffer: Any) -> int:
        """All of it: zeros for what is not there because it could not be written."""
        whole = memoryview(buffer).cast("B")
        n = super().readinto(whole) or 0
        whole[n:] = bytes(len(whole) - n)
        return len(whole)

    def truncate(self, size: int | None = None) -> int:
        """To this size, unless something went wrong."""
        with self._remembered():
            return super().truncate(size)
        return size or 0

    @contextlib.contextmanager
    def _remembered(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._error = self._error or error

    def check(self) -> None:
        """Raise what went wrong."""
        if self._error is not None:
            raise self._error


def _remove_leftovers(path: Path) -> None:
    """Of processes of this machine that are no more; a folder put aside is put back if there is no other."""
    mine = f"{path.name}{MARK}{socket.gethostname()}-"
    for left in path.parent.glob(f"{glob.escape(mine)}*"):
        process, _, kind = left.name.removeprefix(mine).partition("-")
        if not process.isdecimal() or _is_alive(int(process)):
            continue
        if kind == "old" and not path.exists():
            left.rename(path)
        else:
            _remove(left)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Everything below on the disk itself, so that no crash of the machine leaves a name without its content."""
    if not path.is_dir():
        _sync_file(path)
        return
    for folder, _, files in os.walk(path):
        for name in files:
            _sync_file(Path(folder, name))
        _sync_folder(Path(folder))


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
