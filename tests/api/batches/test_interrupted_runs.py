"""A run that is killed at any moment, and continued by another one, gives the same rows, each once."""

import asyncio
import random
from contextlib import suppress

import pytest

from api.background_tasks import cancel_and_wait
from shared.ledger.batch_ledger import BatchLost
from shared.ledger.batch_record import BatchRecord, BatchStatus
from tests.api.batches.support import Bench, Killer, LinesWithJobs, StubLines, good_line, lines_as_file, wait_until
from tests.shared.ledger.batches import BATCH

COUNT = 9
FAILING = (2, 5, 6)
CONTENT = lines_as_file([*(good_line(number) for number in range(1, COUNT)), b"", b"no JSON"])
NUMBERS = [1, 2, 3, 4, 5, 6, 7, 8, 10]

pytestmark = pytest.mark.usefixtures("small_segments")


async def check_output(bench: Bench, record: BatchRecord) -> None:
    """The batch is complete, and everything about it agrees."""
    assert record.status is BatchStatus.COMPLETED
    assert [row["line"] for row in await bench.rows()] == NUMBERS
    output, errors = await bench.content(record.output_file), await bench.content(record.error_file)
    assert [row["line"] for row in output] == [1, 3, 4, 7, 8]
    assert [row["line"] for row in errors] == [2, 5, 6, 10]
    assert (record.lines, record.rows_ok, record.rows_failed, record.rows_seen) == (9, 5, 4, 9)
    assert (record.pairs, record.pairs_done, record.cursor_byte, record.cursor_line) == (16, 16, len(CONTENT), 10)
    assert sum(segment.rows for segment in await bench.batches.segments(BATCH)) == COUNT
    assert await bench.batches.open_batches() == []


async def run_and_kill(bench: Bench, at: int) -> bool:
    """Run until the killer's point. Returns whether it was reached."""
    killer = Killer(at)
    task = await bench.start(StubLines(failing=FAILING), killer=killer)
    with suppress(asyncio.CancelledError):
        async with asyncio.timeout(20):
            await task
    return task.cancelled()


async def test_uninterrupted_run(bench: Bench) -> None:
    await bench.create(CONTENT)
    await check_output(bench, await bench.run(StubLines(failing=FAILING)))


async def test_run_killed_at_every_await_point_is_continued(bench: Bench) -> None:
    at, killed = 1, True
    while killed:
        await bench.client.flushdb()
        await bench.create(CONTENT)
        killed = await run_and_kill(bench, at)
        if killed and (await bench.read()).status.final:
            # Only the reply to the last call is lost.
            killed = False
        elif killed:
            await check_output(bench, await bench.run(StubLines(failing=FAILING)))
        at += 1
    await check_output(bench, await bench.read())
    assert at > 30


@pytest.mark.parametrize("seed", range(8))
async def test_run_killed_again_and_again_is_continued(bench: Bench, seed: int) -> None:
    choose = random.Random(seed)
    await bench.create(CONTENT)
    for _ in range(40):
        if not await run_and_kill(bench, choose.randint(1, 30)) or (await bench.read()).status.final:
            break
    else:
        await bench.run(StubLines(failing=FAILING))
    await check_output(bench, await bench.read())


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377])
async def test_run_cancelled_after_some_steps_of_the_event_loop_is_continued(bench: Bench, steps: int) -> None:
    async def answer(number: int) -> None:
        for _ in range(number % 4):
            await asyncio.sleep(0)

    await bench.create(CONTENT)
    task = await bench.start(StubLines(answer, FAILING))
    for _ in range(steps):
        await asyncio.sleep(0)
    await cancel_and_wait([task])
    if not (await bench.read()).status.final:
        await bench.run(StubLines(failing=FAILING))
    await check_output(bench, await bench.read())


async def test_failed_validation_is_found_again(bench: Bench) -> None:
    """A batch that was about to fail is not run by the next process."""
    for at in range(1, 60):
        await bench.client.flushdb()
        await bench.create(lines_as_file([good_line(1), good_line(1)]))
        if not await run_and_kill(bench, at):
            break
        record = await bench.read()
        if not record.status.final:
            record = await bench.run()
        assert (record.status, [error.code for error in record.errors]) == ("failed", ["duplicate_custom_id"])
        assert (record.finalizing_ms, record.lines, await bench.rows()) == (0, 2, [])
    else:
        raise AssertionError("the run never ended")


async def test_killed_run_that_was_cancelled_stays_cancelled(bench: Bench) -> None:
    for at in range(1, 60):
        await bench.client.flushdb()
        await bench.create(CONTENT)
        await bench.batches.cancel(BATCH)
        if not await run_and_kill(bench, at):
            break
        record = await bench.read()
        if not record.status.final:
            record = await bench.run()
        assert (record.status, [row["line"] for row in await bench.rows()]) == (BatchStatus.CANCELLED, NUMBERS)
    else:
        raise AssertionError("the run never ended")


@pytest.mark.usefixtures("fast")
class TestLostLease:
    async def test_runner_that_lost_its_lease_stops_and_writes_nothing(self, bench: Bench) -> None:
        async def never(number: int) -> None:
            if number > 4:
                await asyncio.Event().wait()

        await bench.create(CONTENT)
        slow = await bench.start(StubLines(never, FAILING))
        await wait_until(lambda: bench.batches.segments(BATCH))
        record = await bench.run(StubLines(failing=FAILING))
        await check_output(bench, record)
        with pytest.raises(BatchLost):
            async with asyncio.timeout(5):
                await slow
        await check_output(bench, await bench.read())

    async def test_runner_that_lost_its_lease_with_a_segment_at_hand_writes_nothing(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("api.batches.batch_writer.RENEW_SECONDS", 60)
        release = asyncio.Event()

        async def wait(number: int) -> None:
            if number > 4:
                await release.wait()

        await bench.create(CONTENT)
        slow = await bench.start(StubLines(wait, FAILING))
        await wait_until(lambda: bench.batches.segments(BATCH))
        await check_output(bench, await bench.run(StubLines(failing=FAILING)))
        before = await bench.batches.segments(BATCH)
        release.set()
        with pytest.raises(BatchLost):
            async with asyncio.timeout(5):
                await slow
        assert await bench.batches.segments(BATCH) == before
        await check_output(bench, await bench.read())

    async def test_runner_of_a_deleted_batch_deletes_its_jobs(self, bench: Bench) -> None:
        jobs_of_lines: list[str] = []

        async def never(job_id: str) -> None:
            jobs_of_lines.append(job_id)
            await asyncio.Event().wait()

        record = await bench.create(lines_as_file([good_line(1), good_line(2)]))
        task = await bench.start(LinesWithJobs(bench.jobs, never))
        await wait_until(lambda: len(jobs_of_lines) == 2)
        await bench.batches.delete(record)
        with pytest.raises(BatchLost):
            async with asyncio.timeout(5):
                await task
        assert set((await bench.jobs.statuses(jobs_of_lines)).values()) == {None}
