"""The sweeper deletes what no record refers to, and nothing else."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.background_tasks import cancel_and_wait
from api.files.sweeper import ABANDONED_SECONDS, GRACE_SECONDS, Sweeper
from api.payloads.names import PayloadNames, object_owner
from shared.keys import batch_keys
from shared.ledger.batch_record import BatchKind, BatchRecord, BatchStatus
from tests.api.batches.support import Bench, StubLines, good_line, lines_as_file, wait_until
from tests.api.payloads.support import objects, write
from tests.shared.ledger.batches import BATCH, create, make_batch
from tests.shared.support import OWNER

NOW = -1.0
"""A grace period that has passed for every object."""


@pytest.fixture
def sweeper(bench: Bench) -> Sweeper:
    return Sweeper(bench.client, bench.payloads, bench.names)


async def upload(bench: Bench, file_id: str) -> str:
    """Upload a file, and return the name of its object."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"{}\n"

    stored = await bench.files.store(file_id, chunks())
    await bench.files.create(OWNER, file_id, "in.jsonl", "batch", stored, None)
    return stored[0]


async def left(bench: Bench) -> set[str]:
    """The objects that are left, without the mark of the namespace."""
    return {name for name in await objects(bench.payloads) if not name.endswith("/alive")}


async def finished(bench: Bench, kind: BatchKind = BatchKind.BATCH, batch_id: str = BATCH) -> BatchRecord:
    """A batch with an output and an error file, and with an input of its own."""
    await bench.create(lines_as_file([good_line(1), good_line(2)]), kind=kind, batch_id=batch_id)
    return await bench.run(StubLines(failing=(2,)), batch_id=batch_id)


class TestFiles:
    async def test_file_stays_while_its_record_exists(self, bench: Bench, sweeper: Sweeper) -> None:
        kept = await upload(bench, "file-1")
        await upload(bench, "file-2")
        await bench.client.delete(batch_keys.file("file-2"))
        assert await sweeper.sweep(NOW) == 1
        assert await left(bench) == {kept}
        assert await sweeper.sweep(NOW) == 0

    async def test_orphan_is_deleted_after_the_grace_period(
        self, bench: Bench, sweeper: Sweeper, tmp_path: Path
    ) -> None:
        name = await bench.names.upload("file-1")
        await write(bench.payloads, name, b"{}")
        assert await sweeper.sweep() == 0
        path, age = tmp_path / "payloads" / name, time.time() - GRACE_SECONDS
        os.utime(path, (age + 60, age + 60))
        assert await sweeper.sweep() == 0
        os.utime(path, (age - 1, age - 1))
        assert await sweeper.sweep() == 1
        assert await left(bench) == set()

    async def test_input_of_an_open_batch_stays_when_its_file_has_expired(self, bench: Bench, sweeper: Sweeper) -> None:
        name = await upload(bench, "file-1")
        batch = await create(bench.batches, make_batch(input_file="file-1", input_name=name))
        await bench.client.delete(batch_keys.file("file-1"))
        assert (await sweeper.sweep(NOW), await left(bench)) == (0, {name})
        await bench.batches.delete(batch)
        assert (await sweeper.sweep(NOW), await left(bench)) == (1, set())


class TestBatches:
    async def test_unfinished_batch_keeps_everything(self, bench: Bench, sweeper: Sweeper) -> None:
        await bench.create(b"{}")
        segment = await bench.names.segment(BATCH)
        await write(bench.payloads, segment, b"{}")
        before = await left(bench)
        assert (await sweeper.sweep(NOW), await left(bench)) == (0, before)

    async def test_results_stay_while_one_of_their_files_exists(self, bench: Bench, sweeper: Sweeper) -> None:
        record = await finished(bench)
        before = await left(bench)
        assert record.output_file
        assert record.error_file
        await bench.files.delete(record.output_file, OWNER)
        assert (await sweeper.sweep(NOW), await left(bench)) == (0, before)
        assert len(await bench.content(record.error_file)) == 1
        await bench.files.delete(record.error_file, OWNER)
        assert await sweeper.sweep(NOW) == len(before) == 2

    async def test_job_of_many_requests_keeps_its_results_without_files(self, bench: Bench, sweeper: Sweeper) -> None:
        record = await finished(bench, BatchKind.JOB)
        assert (record.status, await sweeper.sweep(NOW)) == (BatchStatus.COMPLETED, 0)
        assert len(await bench.rows()) == 2
        await bench.batches.delete(record)
        assert (await sweeper.sweep(NOW), await left(bench)) == (2, set())

    async def test_more_objects_than_are_looked_at_together(
        self, bench: Bench, sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("api.files.sweeper._AT_ONCE", 2)
        kept = {await upload(bench, f"file-{number}") for number in range(3)}
        for number in range(5):
            await write(bench.payloads, await bench.names.upload(f"orphan-{number}"), b"{}")
        assert (await sweeper.sweep(NOW), await left(bench)) == (5, kept)


class TestNamespaces:
    async def test_objects_of_another_deployment_stay(self, bench: Bench, sweeper: Sweeper) -> None:
        names = {"0123456789abcdef/files/file-1", "0123456789abcdef/batches/batch_1/input", "other-programs-file"}
        for name in names:
            await write(bench.payloads, name, b"{}")
        assert (await sweeper.sweep(NOW), await left(bench)) == (0, names)

    async def test_namespace_that_nobody_marked_for_a_month_is_deleted(
        self, bench: Bench, sweeper: Sweeper, tmp_path: Path
    ) -> None:
        for namespace, days in (("dead", 1.0), ("alive", -1.0)):
            for name in (f"{namespace}/alive", f"{namespace}/files/file-1"):
                await write(bench.payloads, name, b"{}")
            at = time.time() - ABANDONED_SECONDS - 86_400 * days
            os.utime(tmp_path / "payloads" / namespace / "alive", (at, at))
        assert await sweeper.sweep(NOW) == 2
        assert await left(bench) == {"alive/files/file-1"}

    async def test_own_namespace_is_marked_once_a_day(self, bench: Bench, sweeper: Sweeper, tmp_path: Path) -> None:
        await sweeper.sweep()
        mark = f"{await bench.names.namespace()}/alive"
        first = (await objects(bench.payloads))[mark]
        await sweeper.sweep(NOW)
        assert (await objects(bench.payloads))[mark] == first
        os.utime(tmp_path / "payloads" / mark, (first.modified_at - 90_000,) * 2)
        await sweeper.sweep(NOW)
        assert (await objects(bench.payloads))[mark].modified_at > first.modified_at - 10

    async def test_all_processes_have_the_same_namespace(self, bench: Bench) -> None:
        others = [PayloadNames(bench.client) for _ in range(5)]
        assert len(set(await asyncio.gather(*(names.namespace() for names in others)))) == 1
        assert await bench.names.namespace() == await others[0].namespace()

    async def test_names_tell_their_owner(self, bench: Bench) -> None:
        space = await bench.names.namespace()
        for name, folder, item in (
            (await bench.names.upload("file-1"), "files", "file-1"),
            (await bench.names.batch_input("batch_1"), "batches", "batch_1"),
            (await bench.names.segment("batch_1"), "batches", "batch_1"),
        ):
            owner = object_owner(name)
            assert owner is not None
            assert (owner.namespace, owner.folder, owner.id) == (space, folder, item)
        assert [object_owner(name) for name in (f"{space}/alive", "x", f"{space}/files/a/b")] == [None] * 3


async def test_one_process_sweeps(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.files.sweeper.ROUND_SECONDS", 0.02)
    sweepers = [Sweeper(bench.client, bench.payloads, bench.names) for _ in range(3)]
    rounds: list[Sweeper] = []
    for each in sweepers:

        async def sweep(grace_seconds: float = 0.0, sweeper: Sweeper = each) -> int:
            rounds.append(sweeper)
            return 0

        monkeypatch.setattr(each, "sweep", sweep)
    tasks = [asyncio.create_task(each.run()) for each in sweepers]
    await wait_until(lambda: len(rounds) > 3)
    await cancel_and_wait(tasks)
    assert len(set(rounds)) == 1
