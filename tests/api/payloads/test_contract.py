"""What every payload store does: the same tests with a folder, an S3 server and Redis."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

import pytest

from api.payloads.base import PayloadStore
from shared.errors import PayloadMissing, PayloadsUnavailable
from tests.api.payloads.support import (
    MIB,
    chunks_of,
    in_an_hour,
    objects,
    random_bytes,
    read,
    write,
    write_and_be_killed,
)

BIG = 11 * MIB + 7
"""More than two parts of a multipart upload."""


class SourceFailed(Exception):
    """A caller went away, or sent something that a dialect rejects."""


async def failing_chunks(data: bytes) -> AsyncIterator[bytes]:
    async for chunk in chunks_of(data):
        yield chunk
    raise SourceFailed


@pytest.mark.parametrize(
    ("length", "chunk_bytes"),
    [(0, 1), (1, 1), (1000, 7), (MIB, 65_536), (MIB + 1, MIB), (3 * MIB - 1, 1_000_003), (BIG, 65_536), (BIG, BIG)],
)
async def test_object_is_read_as_it_was_written(payloads: PayloadStore, length: int, chunk_bytes: int) -> None:
    data = random_bytes(length)
    assert await write(payloads, "owner/file", data, chunk_bytes) == length
    assert await read(payloads, "owner/file") == data


async def test_empty_chunks_are_skipped(payloads: PayloadStore) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"", b"a", b"", b"", b"b", b""):
            yield chunk

    assert await payloads.write("file", chunks(), expires_at=in_an_hour()) == 2
    assert await read(payloads, "file") == b"ab"


async def test_chunks_that_are_read_have_at_most_one_mib(payloads: PayloadStore) -> None:
    await write(payloads, "file", bytes(BIG))
    lengths = [len(chunk) async for chunk in payloads.read("file")]
    assert sum(lengths) == BIG
    assert 0 < min(lengths) <= max(lengths) <= MIB
    assert len(lengths) < 200


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 1),
        (0, BIG),
        (5, 5),
        (100, 200),
        (262_143, 262_145),
        (MIB - 1, 2 * MIB + 1),
        (BIG - 1, None),
        (3 * MIB, None),
        (BIG - 10, BIG + 10),
        (BIG, None),
        (BIG, BIG + 1),
        (BIG + 1, None),
        (2 * BIG, 3 * BIG),
    ],
)
async def test_range_is_read(payloads: PayloadStore, start: int, end: int | None) -> None:
    data = random_bytes(BIG)
    await write(payloads, "file", data)
    assert await read(payloads, "file", start, end) == data[start:end]


@pytest.mark.parametrize(("start", "end"), [(-1, None), (-5, -1), (2, 1)])
async def test_invalid_range_is_rejected(payloads: PayloadStore, start: int, end: int | None) -> None:
    await write(payloads, "file", b"abc")
    with pytest.raises(ValueError, match="range"):
        await read(payloads, "file", start, end)


async def test_empty_object_has_an_empty_range(payloads: PayloadStore) -> None:
    await write(payloads, "file", b"")
    assert await read(payloads, "file", 0, 10) == b""


@pytest.mark.parametrize(("start", "end"), [(0, None), (0, 0), (5, 10)])
async def test_missing_object_is_reported_before_the_first_byte(
    payloads: PayloadStore, start: int, end: int | None
) -> None:
    await write(payloads, "owner/other", b"data")
    for name in ("file", "owner", "owner/file", "owner/other/file"):
        with pytest.raises(PayloadMissing, match=name):
            await read(payloads, name, start, end)


@pytest.mark.parametrize("lengths", [(10, 5), (5, 10), (BIG, 1), (1, BIG), (1, 0)])
async def test_written_object_replaces_the_old_one(payloads: PayloadStore, lengths: tuple[int, int]) -> None:
    for data in map(random_bytes, lengths):
        await write(payloads, "file", data)
        assert await read(payloads, "file") == data
    assert [(entry.name, entry.bytes) for entry in (await objects(payloads)).values()] == [("file", lengths[1])]


@pytest.mark.parametrize("length", [0, 10, BIG])
async def test_failed_source_leaves_nothing(payloads: PayloadStore, length: int) -> None:
    with pytest.raises(SourceFailed):
        await payloads.write("owner/file", failing_chunks(random_bytes(length)), expires_at=in_an_hour())
    assert await objects(payloads) == {}
    with pytest.raises(PayloadMissing):
        await read(payloads, "owner/file")
    assert await payloads.remove_abandoned(0) == 0, "the failed write has cleaned up already"


@pytest.mark.parametrize("length", [10, BIG])
async def test_failed_source_keeps_the_old_object(payloads: PayloadStore, length: int) -> None:
    await write(payloads, "file", b"old")
    with pytest.raises(SourceFailed):
        await payloads.write("file", failing_chunks(random_bytes(length)), expires_at=in_an_hour())
    assert await read(payloads, "file") == b"old"


@pytest.mark.parametrize("length", [0, 10, BIG])
async def test_canceled_write_leaves_nothing(payloads: PayloadStore, length: int) -> None:
    waiting = asyncio.Event()

    async def endless_chunks() -> AsyncIterator[bytes]:
        async for chunk in chunks_of(random_bytes(length)):
            yield chunk
        waiting.set()
        await asyncio.Event().wait()

    writing = asyncio.create_task(payloads.write("file", endless_chunks(), expires_at=in_an_hour()))
    await asyncio.wait_for(waiting.wait(), 30)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(writing, 30)
    assert await objects(payloads) == {}
    assert await payloads.remove_abandoned(0) == 0, "the canceled write has cleaned up already"


@pytest.mark.parametrize("old", [None, b"old"])
async def test_readers_see_the_old_object_until_the_new_one_is_complete(
    payloads: PayloadStore, old: bytes | None
) -> None:
    if old is not None:
        await write(payloads, "file", old)
    new = random_bytes(BIG)
    seen: list[bytes | None] = []

    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in chunks_of(new, 2 * MIB):
            yield chunk
            try:
                seen.append(await read(payloads, "file"))
            except PayloadMissing:
                seen.append(None)
            listed = {name: entry.bytes for name, entry in (await objects(payloads)).items()}
            assert listed == ({} if old is None else {"file": len(old)})

    await payloads.write("file", chunks(), expires_at=in_an_hour())
    assert seen == [old] * 6
    assert await read(payloads, "file") == new


async def test_concurrent_writers_do_not_mix(payloads: PayloadStore) -> None:
    versions = [random_bytes(6 * MIB + number) for number in range(4)]
    await asyncio.gather(*(write(payloads, "file", version) for version in versions))
    assert await read(payloads, "file") in versions
    assert await payloads.remove_abandoned(0) == 0


async def test_deleted_object_is_missing(payloads: PayloadStore) -> None:
    for name in ("owner/a", "owner/b"):
        await write(payloads, name, b"data")
    await payloads.delete("owner/a")
    assert list(await objects(payloads)) == ["owner/b"]
    with pytest.raises(PayloadMissing):
        await read(payloads, "owner/a")
    await write(payloads, "owner/a", b"new")
    assert await read(payloads, "owner/a") == b"new"


async def test_deleting_a_missing_object_does_nothing(payloads: PayloadStore) -> None:
    await write(payloads, "owner/file", b"data")
    for name in ("file", "owner", "owner/other", "owner/file/x"):
        await payloads.delete(name)
    assert list(await objects(payloads)) == ["owner/file"]


async def test_list_has_name_size_and_time(payloads: PayloadStore) -> None:
    assert await objects(payloads) == {}
    names = ["a", "b/c", "b/d/e.jsonl", ".hidden", "UPPER-case_1", "x" * 200]
    for length, name in enumerate(names):
        await write(payloads, name, bytes(length))
    listed = await objects(payloads)
    assert {name: entry.bytes for name, entry in listed.items()} == {name: n for n, name in enumerate(names)}
    assert all(abs(entry.modified_at - time.time()) < 60 for entry in listed.values())


async def test_long_list_is_complete(payloads: PayloadStore) -> None:
    names = {f"owner/{number:04}" for number in range(1500)}  # S3 returns a thousand per page
    for start in range(0, 1500, 50):
        await asyncio.gather(*(write(payloads, name, b"x") for name in sorted(names)[start : start + 50]))
    assert set(await objects(payloads)) == names


@pytest.mark.parametrize(
    "name",
    ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a b", "a\n", "a\0", "ä", "a~", "a%2fb", "a*",
     "a\\b", "x" * 201, "/".join("abcdefghijk")],
)  # fmt: skip
async def test_invalid_name_is_rejected(payloads: PayloadStore, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        await write(payloads, name, b"data")
    with pytest.raises(ValueError, match="not a name"):
        await read(payloads, name)
    with pytest.raises(ValueError, match="not a name"):
        await payloads.delete(name)


async def test_complete_and_unfinished_objects_are_not_abandoned(payloads: PayloadStore) -> None:
    await write(payloads, "complete", b"data")

    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in chunks_of(bytes(BIG), 2 * MIB):
            yield chunk
            assert await payloads.remove_abandoned(60) == 0

    await payloads.write("unfinished", chunks(), expires_at=in_an_hour())
    assert set(await objects(payloads)) == {"complete", "unfinished"}


async def test_remains_of_a_killed_writer_are_removed(payloads: PayloadStore, location: str, redis_url: str) -> None:
    await write(payloads, "complete", b"data")
    await asyncio.to_thread(write_and_be_killed, location, redis_url)
    assert set(await objects(payloads)) == {"complete"}
    assert await payloads.remove_abandoned(60) == 0
    assert await payloads.remove_abandoned(0) == 1
    assert await payloads.remove_abandoned(0) == 0
    assert set(await objects(payloads)) == {"complete"}


async def test_reader_of_a_replaced_object_never_sees_both(payloads: PayloadStore) -> None:
    await write(payloads, "file", b"a" * 40 * MIB)
    read_before = b""
    with suppress(PayloadsUnavailable):
        async with aclosing(payloads.read("file")) as chunks:
            async for chunk in chunks:
                if not read_before:
                    await write(payloads, "file", b"b" * 40 * MIB)
                read_before += chunk
    assert set(read_before) == set(b"a")


async def test_reader_that_stops_early_releases_what_it_used(payloads: PayloadStore) -> None:
    await write(payloads, "file", bytes(BIG))
    for _ in range(50):
        chunks = payloads.read("file")
        assert await anext(chunks)
        await chunks.aclose()
    await payloads.delete("file")
