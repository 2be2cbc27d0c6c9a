"""A payload store in a folder: one file per object. API processes on several machines may share the folder.

Owns atomic writes and durability: an object is on the disk before its name exists, and its name before `write` returns.
Refuses to block the event loop: all file operations run on threads. Files whose name starts with "~" are unfinished.
"""

import asyncio
import errno
import os
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterator
from contextlib import aclosing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar, TypeVarTuple

from api.payloads.base import (
    BLOCK_BYTES,
    StoredObject,
    blocks,
    check_name,
    check_range,
    full,
    is_name,
    missing,
    run_to_end,
    unavailable,
)

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

_UNFINISHED = "~"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FILES_PER_THREAD_SWITCH = 1000


class FolderStore:
    """A PayloadStore in the folder `path`, which the first write creates. Only its owner can read the files."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def write(self, name: str, chunks: AsyncIterable[bytes], *, expires_at: float) -> int:
        """See PayloadStore. Receives the next block while a thread writes the last one."""
        file = _NewFile(self._path, self._path / check_name(name))
        size = 0
        writing = asyncio.ensure_future(asyncio.to_thread(file.create))
        try:
            async with aclosing(blocks(chunks)) as received:
                async for block in received:
                    # Without the shield, a cancellation would end the future and leave its thread running.
                    await asyncio.shield(writing)
                    writing = asyncio.ensure_future(asyncio.to_thread(file.write, block))
                    size += len(block)
            await asyncio.shield(writing)
            writing = asyncio.ensure_future(asyncio.to_thread(file.publish))
            await asyncio.shield(writing)
        except BaseException:
            await asyncio.wait([writing])
            with suppress(Exception):
                writing.result()  # Otherwise asyncio logs an exception that was never retrieved.
            await _on_thread(file.discard)
            raise
        return size

    async def read(self, name: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        """See PayloadStore. A replaced or deleted object can still be read to its end."""
        check_range(start, end)
        file = _OpenFile(name, self._path / check_name(name))
        try:
            # An empty range also reads once, to find out whether the object exists.
            limit = BLOCK_BYTES if end is None else min(BLOCK_BYTES, end - start)
            while block := await _on_thread(file.read, limit, start):
                yield block
                start += len(block)
                limit = BLOCK_BYTES if end is None else min(BLOCK_BYTES, end - start)
        finally:
            file.close()

    async def delete(self, name: str) -> None:
        """See PayloadStore. Keeps the folder of the object, in which others may be created at this moment."""
        await _on_thread(_remove, self._path / check_name(name))

    async def list(self) -> AsyncGenerator[StoredObject]:
        """See PayloadStore."""
        files = _walk(self._path)
        try:
            while batch := await _on_thread(_next_files, files):
                for path, status in batch:
                    name = path.relative_to(self._path).as_posix()
                    if is_name(name):
                        yield StoredObject(name, status.st_size, status.st_mtime)
        finally:
            files.close()

    async def remove_abandoned(self, older_than_seconds: float) -> int:
        """See PayloadStore. A write is interrupted when its file has not grown for this time."""
        return await _on_thread(_remove_unfinished, self._path, time.time() - older_than_seconds)

    async def close(self) -> None:
        """See PayloadStore. There is nothing to release."""


class _NewFile:
    """An object that is being written. The methods block, and run one at a time."""

    def __init__(self, store: Path, target: Path) -> None:
        self._store = store
        self._target = target
        # Beside the target: a rename within a folder is atomic on every file system.
        self._path = target.with_name(_UNFINISHED + secrets.token_hex(8))
        self._file: BinaryIO | None = None

    def create(self) -> None:
        with _folder_errors():
            _make_folder(self._target.parent)
            self._file = open(self._path, "xb", opener=_open_private)  # noqa: SIM115 - closed by publish or discard

    def write(self, block: bytes) -> None:
        assert self._file is not None
        with _folder_errors():
            self._file.write(block)

    def publish(self) -> None:
        """Give the complete object its name."""
        assert self._file is not None
        with _folder_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._path, self._target)
            _sync_folder(self._target.parent)

    def discard(self) -> None:
        """Delete the object, unless it was published."""
        # Closing writes what is buffered, which fails again when the disk is full.
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
        with suppress(OSError):
            os.unlink(self._path)


class _OpenFile:
    """An object that is being read. The first read opens it."""

    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self._path = path
        self._descriptor: int | None = None

    def read(self, limit: int, offset: int) -> bytes:
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self._descriptor, limit, offset)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise missing(self._name) from error
        except OSError as error:
            raise unavailable(error) from error

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


async def _on_thread(function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
    """Run a function on a thread. A cancellation waits for its end, because the caller closes its files."""
    return await run_to_end(asyncio.to_thread(function, *arguments))


@contextmanager
def _folder_errors() -> Iterator[None]:
    """Convert errors of the file system inside the block into PayloadsFull or PayloadsUnavailable."""
    try:
        yield
    except OSError as error:
        raise (full if error.errno in _FULL else unavailable)(error) from error


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _make_folder(path: Path) -> None:
    """Create a folder and its parents, private and durable."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    # IsADirectoryError: the name is the folder of other objects, so there is no such object.
    with _folder_errors(), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        path.unlink()


def _walk(folder: Path) -> Generator[tuple[Path, os.stat_result]]:
    """Yields the path and the status of every file below a folder. Omits what is deleted meanwhile."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    yield Path(entry.path), entry.stat(follow_symlinks=False)


def _next_files(files: Iterator[tuple[Path, os.stat_result]]) -> list[tuple[Path, os.stat_result]]:
    """The next files of a walk; none at its end."""
    with _folder_errors():
        return list(islice(files, _FILES_PER_THREAD_SWITCH))


def _remove_unfinished(folder: Path, before: float) -> int:
    """Delete the unfinished files that were last modified before this time. Returns how many."""
    removed = 0
    with _folder_errors():
        for path, status in _walk(folder):
            if path.name.startswith(_UNFINISHED) and status.st_mtime < before:
                path.unlink(missing_ok=True)
                removed += 1
    return removed
