"""Records of files: created once, listed in both orders, gone when their lifetime has passed."""

from collections.abc import Sequence
from typing import Any

import pytest
import redis
import redis.asyncio

from shared.errors import StoreDamaged, StoreUnavailable
from shared.keys import batch_keys
from shared.ledger.batch_record import FileRecord, FileSource, new_file_id
from shared.ledger.file_ledger import FileLedger
from shared.ledger.job_record import Position
from tests.shared.support import OWNER, StoreView, out_of_memory


@pytest.fixture
def files(async_client: redis.asyncio.Redis) -> FileLedger:
    return FileLedger(async_client)


def make_file(file_id: str = "file-1", owner: str = OWNER, purpose: str = "batch", size: int = 12) -> FileRecord:
    """A file that is to be created."""
    name = f"space/files/{file_id}"
    return FileRecord(file_id, owner, "panda.jsonl", purpose, size, 0, 0, FileSource.UPLOAD, name)


async def test_file_is_read_as_it_was_created(files: FileLedger, store: StoreView) -> None:
    created = await files.create(make_file(), 60)
    assert await files.read("file-1") == created
    assert created.created_ms == pytest.approx(store.now_ms(), abs=5000)
    assert created.expires_ms - created.created_ms == 60_000
    assert store.remaining_seconds(batch_keys.file("file-1")) == pytest.approx(60, abs=5)


async def test_empty_file_can_be_read(files: FileLedger) -> None:
    assert (await files.create(make_file(size=0), 60)).size == 0
    assert await files.read("file-1")


async def test_repeated_creation_adds_no_second_file(files: FileLedger) -> None:
    for _ in range(2):
        created = await files.create(make_file(), 60)
    assert await files.page(OWNER, 10) == ([created], False)


async def test_file_is_deleted_once(files: FileLedger, redis_client: redis.Redis) -> None:
    record = await files.create(make_file(), 60)
    assert [await files.delete(record) for _ in range(2)] == [True, False]
    assert await files.read("file-1") is None
    assert redis_client.keys() == []


async def test_list_lives_as_long_as_its_last_file(files: FileLedger, store: StoreView) -> None:
    for number, seconds in enumerate((100, 900, 60)):
        await files.create(make_file(f"file-{number}"), seconds)
    assert store.remaining_seconds(batch_keys.owned_files(OWNER)) == pytest.approx(900, abs=5)


async def test_full_redis_refuses_a_file_as_a_whole(files: FileLedger, redis_client: redis.Redis) -> None:
    with out_of_memory(redis_client), pytest.raises(StoreUnavailable):
        await files.create(make_file(), 60)
    assert redis_client.keys() == []


async def test_full_redis_deletes_files(files: FileLedger, redis_client: redis.Redis) -> None:
    record = await files.create(make_file(), 60)
    with out_of_memory(redis_client):
        assert await files.delete(record)


@pytest.mark.parametrize(("field", "value"), [("bytes", "many"), ("source", "moon"), ("owner", None)])
async def test_damaged_record_is_reported(files: FileLedger, redis_client: Any, field: str, value: str | None) -> None:
    await files.create(make_file(), 60)
    if value is None:
        redis_client.hdel(batch_keys.file("file-1"), field)
    else:
        redis_client.hset(batch_keys.file("file-1"), field, value)
    with pytest.raises(StoreDamaged):
        await files.read("file-1")


def test_ids_are_unguessable() -> None:
    assert len({new_file_id() for _ in range(100)}) == 100
    assert all(len(new_file_id()) >= len("file-") + 32 for _ in range(3))


class TestLists:
    @pytest.fixture
    async def created(self, files: FileLedger, redis_client: Any) -> list[str]:
        """Files with equal times, of which some no longer exist: the ids of the others, oldest first."""
        for number in range(12):
            await files.create(make_file(f"file-{number:02}", purpose="batch" if number % 2 else "other"), 60)
            created_ms = 1000 + number // 5
            redis_client.hset(batch_keys.file(f"file-{number:02}"), "created_ms", created_ms)
            redis_client.zadd(batch_keys.owned_files(OWNER), {f"file-{number:02}": created_ms})
        await files.create(make_file("file-x", owner="other"), 60)
        redis_client.delete(batch_keys.file("file-03"), batch_keys.file("file-11"))
        return [f"file-{number:02}" for number in range(12) if number not in (3, 11)]

    async def ids_of_pages(self, files: FileLedger, limit: int, **options: Any) -> Sequence[str]:
        seen: list[str] = []
        position: Position | None = None
        for _ in range(30):
            found, more = await files.page(OWNER, limit, position, **options)
            seen += [record.id for record in found]
            if not more:
                return seen
            position = Position(found[-1].created_ms, found[-1].id)
        raise AssertionError("there are too many pages")

    @pytest.mark.parametrize("limit", [1, 2, 5, 10])
    @pytest.mark.parametrize("newest_first", [True, False])
    async def test_pages_have_every_file_once(
        self, files: FileLedger, created: list[str], limit: int, newest_first: bool
    ) -> None:
        expected = created[::-1] if newest_first else created
        assert await self.ids_of_pages(files, limit, newest_first=newest_first) == expected

    async def test_list_is_filtered_by_purpose(self, files: FileLedger, created: list[str]) -> None:
        expected = [file_id for file_id in reversed(created) if int(file_id[-2:]) % 2]
        assert await self.ids_of_pages(files, 2, purpose="batch") == expected
        assert await self.ids_of_pages(files, 2, purpose="nothing") == []

    async def test_lists_are_longer_than_one_read(
        self, files: FileLedger, monkeypatch: pytest.MonkeyPatch, created: list[str]
    ) -> None:
        monkeypatch.setattr("shared.ledger.owned_pages._PAGE", 3)
        assert await self.ids_of_pages(files, 4) == created[::-1]
