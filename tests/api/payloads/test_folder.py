"""What only the store in a folder does: private, durable files on a disk that may be full."""

import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.payloads.folder import FolderStore
from shared.errors import PayloadsFull, PayloadsUnavailable
from tests.api.payloads.support import MIB, files_in, in_an_hour, memory_limit, objects, read, repeated, write


@pytest.fixture
def store(folder: Path) -> FolderStore:
    return FolderStore(folder)


@pytest.fixture
def largest_file() -> Iterator[int]:
    """The kernel lets no file grow over this size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, hard))
    yield 4 * MIB
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_folder_is_created_by_the_first_write(store: FolderStore, folder: Path) -> None:
    assert await objects(store) == {}
    assert await store.remove_abandoned(0) == 0
    await store.delete("file")
    assert files_in(folder.parent) == set()
    await write(store, "file", b"data")
    assert files_in(folder) == {"file"}


async def test_only_the_owner_can_read_files_in(store: FolderStore, folder: Path) -> None:
    await write(store, "owner/file", b"data")
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "owner", folder / "owner/file")}
    assert list(modes.values()) == [0o700, 0o700, 0o600]


@pytest.mark.parametrize("chunk_bytes", [65_536, 16 * MIB])
async def test_full_disk_stores_nothing(store: FolderStore, folder: Path, largest_file: int, chunk_bytes: int) -> None:
    await write(store, "file", b"old")
    with pytest.raises(PayloadsFull, match="full"):
        await store.write("file", repeated(bytes(chunk_bytes), 16 * MIB // chunk_bytes), expires_at=in_an_hour())
    assert files_in(folder) == {"file"}
    assert await read(store, "file") == b"old"
    assert await write(store, "other", bytes(largest_file)) == largest_file


async def test_other_files_in_the_folder_are_not_listed(store: FolderStore, folder: Path) -> None:
    await write(store, "file", b"data")
    (folder / "lost+found").mkdir()
    for name in ("lost+found/x", "a b", "~0123456789abcdef"):
        (folder / name).write_bytes(b"data")
    (folder / "link").symlink_to(folder / "file")
    assert list(await objects(store)) == ["file"]


async def test_unusable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    store = FolderStore(tmp_path / "file" / "payloads")
    with pytest.raises(PayloadsUnavailable, match="cannot be used") as raised:
        await write(store, "name", b"data")
    assert str(tmp_path) not in raised.value.message, "paths are only logged"


async def test_object_cannot_replace_a_folder(store: FolderStore, folder: Path) -> None:
    await write(store, "owner/file", b"data")
    for name in ("owner", "owner/file/other"):
        with pytest.raises(PayloadsUnavailable):
            await write(store, name, b"data")
    assert files_in(folder) == {"owner/file"}


async def test_reader_finishes_a_deleted_object(store: FolderStore) -> None:
    await write(store, "file", bytes(3 * MIB))
    chunks = store.read("file")
    length = len(await anext(chunks))
    await store.delete("file")
    assert length + sum([len(chunk) async for chunk in chunks]) == 3 * MIB


async def test_memory_does_not_grow_with_the_object(store: FolderStore) -> None:
    with memory_limit(8 * MIB):
        await store.write("file", repeated(bytes(65_536), 3200), expires_at=in_an_hour())
        assert sum([len(chunk) async for chunk in store.read("file")]) == 200 * MIB
