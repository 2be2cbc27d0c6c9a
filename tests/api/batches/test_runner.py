"""Which batches a runner runs, and what happens to those of runners that stop, are killed, or fail."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from api.background_tasks import cancel_and_wait
from api.batches.runner import MAX_CRASHES, Runner, RunnerLimits
from api.dialects.registry import SUPERSET
from shared.keys import batch_keys
from shared.ledger.batch_record import BatchStatus
from tests.api.batches.support import REGISTRY, Bench, StubLines, good_line, lines_as_file, wait_until
from tests.shared.ledger.batches import BATCH

pytestmark = pytest.mark.usefixtures("fast")

THREE = lines_as_file([good_line(number) for number in range(1, 4)])


@pytest.fixture(autouse=True)
def check_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.batches.runner.CHECK_SECONDS", 0.01)


def make_runner(bench: Bench, lines: Any, *, max_lines: int = 100) -> Runner:
    return Runner(
        batches=bench.batches,
        jobs=bench.jobs,
        lines=lines,
        pools=bench.pools,
        payloads=bench.payloads,
        names=bench.names,
        models=REGISTRY,
        root=SUPERSET,
        limits=RunnerLimits(10_000, max_lines, 100),
    )


@asynccontextmanager
async def running(runner: Runner) -> AsyncIterator[None]:
    task = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        await cancel_and_wait([task])


def has_status(bench: Bench, status: BatchStatus, batch_id: str = BATCH) -> Callable[[], Any]:
    async def check() -> bool:
        return (await bench.read(batch_id)).status is status

    return check


async def never(_: int) -> None:
    await asyncio.Event().wait()


async def test_batches_are_run_to_their_end(bench: Bench) -> None:
    for number in range(3):
        await bench.create(THREE, batch_id=f"batch_{number}")
    async with asyncio.timeout(10):
        await make_runner(bench, StubLines()).run(until_idle_seconds=0.05)
    for number in range(3):
        assert (await bench.read(f"batch_{number}")).status is BatchStatus.COMPLETED


async def test_batch_of_a_later_time_is_run(bench: Bench) -> None:
    async with running(make_runner(bench, StubLines())):
        await asyncio.sleep(0.05)
        await bench.create(THREE)
        await wait_until(has_status(bench, BatchStatus.COMPLETED))


async def test_owners_share_the_runner(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch of another owner is not behind all those of the first one."""
    monkeypatch.setattr("api.batches.runner.MAX_RUNNING", 2)
    for number in range(4):
        await bench.create(THREE, batch_id=f"batch_{number}")
    await bench.create(THREE, batch_id="batch_other", owner="other")
    async with running(make_runner(bench, StubLines(never))):
        await wait_until(has_status(bench, BatchStatus.IN_PROGRESS, "batch_other"))
        await wait_until(has_status(bench, BatchStatus.IN_PROGRESS, "batch_0"))
        assert (await bench.read("batch_1")).status is BatchStatus.VALIDATING


async def test_two_runners_run_a_batch_once(bench: Bench) -> None:
    both = [StubLines(), StubLines()]
    for number in range(6):
        await bench.create(THREE, batch_id=f"batch_{number}")
    async with asyncio.timeout(10):
        await asyncio.gather(*(make_runner(bench, lines).run(until_idle_seconds=0.1) for lines in both))
    assert len(both[0].started) + len(both[1].started) == 18
    for number in range(6):
        assert [row["line"] for row in await bench.rows(f"batch_{number}")] == [1, 2, 3]


async def test_stopped_runner_releases_its_batches(bench: Bench) -> None:
    await bench.create(THREE)
    async with running(make_runner(bench, StubLines(never))):
        await wait_until(has_status(bench, BatchStatus.IN_PROGRESS))
    async with running(make_runner(bench, StubLines())):
        # Much sooner than a lease expires.
        await wait_until(has_status(bench, BatchStatus.COMPLETED), seconds=3)


async def test_damaged_batch_does_not_block_the_others(bench: Bench) -> None:
    await bench.create(THREE, batch_id="batch_0")
    await bench.create(THREE)
    await bench.create(THREE, batch_id="batch_2")
    await bench.client.hset(batch_keys.batch("batch_0"), "input_bytes", "many")
    async with running(make_runner(bench, StubLines())):
        for batch_id in (BATCH, "batch_2"):
            await wait_until(has_status(bench, BatchStatus.COMPLETED, batch_id))


async def test_batch_whose_run_raises_is_tried_again_and_then_fails(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: int) -> None:
        raise ZeroDivisionError("a bug")

    await bench.create(THREE)
    async with running(make_runner(bench, StubLines(fail))):
        await wait_until(has_status(bench, BatchStatus.FAILED))
    record = await bench.read()
    assert [error.code for error in record.errors] == ["internal_error"]
    assert sum("is run again" in entry.message for entry in caplog.records) == MAX_CRASHES
    assert "a bug" not in record.errors[0].message


async def test_too_many_lines_fail_the_batch(bench: Bench) -> None:
    await bench.create(THREE)
    async with running(make_runner(bench, StubLines(), max_lines=2)):
        await wait_until(has_status(bench, BatchStatus.FAILED))
    assert [(error.code, error.line) for error in (await bench.read()).errors] == [("too_many_lines", 3)]


async def test_deleted_batch_is_left(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    record = await bench.create(THREE)
    async with running(make_runner(bench, StubLines(never))):
        await wait_until(has_status(bench, BatchStatus.IN_PROGRESS))
        await bench.batches.delete(record)
        await wait_until(lambda: any("was deleted" in entry.getMessage() for entry in caplog.records))
    assert await bench.batches.read(BATCH) is None
    assert await bench.batches.open_batches() == []
