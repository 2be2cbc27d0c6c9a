"""How a batch is run: the order of its rows, and how it ends."""

import asyncio
import json
import random
import time
from typing import Any

import pytest

from api.background_tasks import cancel_and_wait
from api.batches.result_rows import Unfinished, unfinished
from shared.ledger.batch_ledger import BatchLedger
from shared.ledger.batch_record import BatchKind, BatchStatus
from tests.api.batches.support import Bench, LinesWithJobs, StubLines, good_line, lines_as_file, wait_until
from tests.shared.ledger.batches import BATCH
from tests.shared.support import MODEL

pytestmark = pytest.mark.usefixtures("fast")

TEN = lines_as_file([good_line(number) for number in range(1, 11)])


async def never(_: int) -> None:
    await asyncio.Event().wait()


class LateReplies(BatchLedger):
    """The reply to `end` arrives after several renewals."""

    async def end(self, *args: Any, **options: Any) -> None:
        await super().end(*args, **options)
        await asyncio.sleep(0.2)


async def test_a_renewal_that_finds_the_batch_ended_is_no_loss(bench: Bench) -> None:
    bench.batches = LateReplies(bench.client, [MODEL])
    await bench.create(lines_as_file([good_line(1)]))
    assert (await bench.run(StubLines())).status is BatchStatus.COMPLETED


class TestOrder:
    @pytest.mark.usefixtures("small_segments")
    @pytest.mark.parametrize("seed", range(15))
    async def test_rows_are_in_the_order_of_the_input(self, bench: Bench, seed: int) -> None:
        """Whatever the order in which lines end, and whichever fail."""
        choose = random.Random(seed)
        count = choose.randint(1, 30)
        pauses = [choose.randint(0, 40) for _ in range(count + 1)]
        failing = [number for number in range(1, count + 1) if choose.random() < 0.4]

        async def answer(number: int) -> None:
            for _ in range(pauses[number]):
                await asyncio.sleep(0)

        await bench.create(lines_as_file([good_line(number) for number in range(1, count + 1)]))
        record = await bench.run(StubLines(answer, failing))
        assert [row["line"] for row in await bench.rows()] == list(range(1, count + 1))
        output, errors = await bench.content(record.output_file), await bench.content(record.error_file)
        assert [row["line"] for row in errors] == failing
        assert [row["line"] for row in output] == [number for number in range(1, count + 1) if number not in failing]

    @pytest.mark.usefixtures("small_segments")
    async def test_segments_of_every_kind(self, bench: Bench) -> None:
        """Only failed rows, only good ones, and both."""
        await bench.create(TEN)
        record = await bench.run(StubLines(failing=(1, 2, 3, 8)))
        kinds = {(bool(each.output_bytes), bool(each.error_bytes)) for each in await bench.batches.segments(BATCH)}
        assert kinds == {(False, True), (True, False), (True, True)}
        assert len(await bench.content(record.output_file)) == 6

    @pytest.mark.usefixtures("small_segments")
    async def test_cursor_moves_with_the_segments(self, bench: Bench) -> None:
        async def answer(number: int) -> None:
            if number > 5:
                await never(number)

        await bench.create(TEN)
        task = await bench.start(StubLines(answer))
        await wait_until(lambda: bench.batches.segments(BATCH))
        for _ in range(20):
            record, segments = await bench.read(), await bench.batches.segments(BATCH)
            assert record.cursor_line <= 5
            assert record.rows_ok <= sum(segment.rows for segment in segments)
            assert record.cursor_byte == sum(len(good_line(line)) + 1 for line in range(1, record.cursor_line + 1))
            await asyncio.sleep(0.01)
        assert [row["line"] for row in await bench.rows()] == list(range(1, record.cursor_line + 1))
        await cancel_and_wait([task])


class TestEnds:
    async def test_completed_batch(self, bench: Bench) -> None:
        await bench.create(TEN)
        record = await bench.run(StubLines(failing=(3,)))
        assert record.status is BatchStatus.COMPLETED
        assert (record.lines, record.rows_ok, record.rows_failed, record.pairs) == (10, 9, 1, 20)
        times = [record.created_ms, record.in_progress_ms, record.finalizing_ms, record.ended_ms]
        assert times == sorted(times)
        assert record.created_ms > 0

    async def test_batch_whose_lines_all_fail_is_completed_with_an_error_file_only(self, bench: Bench) -> None:
        await bench.create(b"no JSON\n[]\n\n" + good_line(4, model="unknown", documents=[]))
        record = await bench.run()
        assert (record.status, record.output_file) == (BatchStatus.COMPLETED, None)
        errors = await bench.content(record.error_file)
        assert [(row["line"], row["response"]["status_code"]) for row in errors] == [(1, 400), (2, 400), (4, 400)]
        assert errors[0]["error"]["code"] == errors[0]["response"]["body"]["error"]["type"] == "invalid_request"

    @pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", b" \r\n"])
    async def test_input_without_lines_fails(self, bench: Bench, content: bytes) -> None:
        await bench.create(content)
        record = await bench.run()
        assert (record.status, [error.code for error in record.errors]) == (BatchStatus.FAILED, ["empty_file"])
        assert (record.output_file, record.error_file, record.lines) == (None, None, 0)

    async def test_job_of_many_requests_has_no_files(self, bench: Bench) -> None:
        await bench.create(TEN, kind=BatchKind.JOB)
        record = await bench.run(StubLines(failing=(1,)))
        assert (record.status, record.output_file, record.error_file) == (BatchStatus.COMPLETED, None, None)
        assert len(await bench.rows()) == 10

    async def test_missing_input_fails_the_batch(self, bench: Bench) -> None:
        record = await bench.create(TEN)
        await bench.payloads.delete(record.input_name)
        record = await bench.run()
        assert (record.status, [error.code for error in record.errors]) == (BatchStatus.FAILED, ["input_missing"])

    @pytest.mark.usefixtures("small_segments")
    async def test_input_that_was_deleted_during_the_run_keeps_what_is_done(self, bench: Bench) -> None:
        async def answer(number: int) -> None:
            if number > 4:
                await never(number)

        record = await bench.create(TEN)
        task = await bench.start(StubLines(answer))
        await wait_until(lambda: bench.batches.segments(BATCH))
        await cancel_and_wait([task])
        await bench.payloads.delete(record.input_name)
        record = await bench.run()
        assert (record.status, record.errors[0].code) == (BatchStatus.FAILED, "input_missing")
        assert len(await bench.content(record.output_file)) == record.rows_ok > 0


class TestStopping:
    @pytest.mark.parametrize("reason", ["cancelled", "expired"])
    async def test_what_is_done_is_kept_and_the_rest_is_marked(self, bench: Bench, reason: str) -> None:
        async def answer(number: int) -> None:
            if number > 4:
                await never(number)

        seconds = 3600.0 if reason == "cancelled" else 0.5
        await bench.create(TEN + b"no JSON\n", seconds=seconds)
        task = await bench.start(StubLines(answer, failing=(2,)))
        if reason == "cancelled":
            await asyncio.sleep(0.1)
            assert await bench.batches.cancel(BATCH) is BatchStatus.CANCELLING
        async with asyncio.timeout(10):
            await task
        record = await bench.read()
        assert (record.status, record.rows_ok, record.rows_failed) == (reason, 3, 8)
        assert [row["line"] for row in await bench.content(record.output_file)] == [1, 3, 4]
        errors = {row["line"]: row["error"]["code"] for row in await bench.content(record.error_file)}
        assert errors == {2: "x"} | dict.fromkeys(range(5, 11), f"batch_{reason}") | {11: "invalid_request"}

    async def test_unfinished_row_names_its_line(self, bench: Bench) -> None:
        await bench.create(TEN)
        await bench.batches.cancel(BATCH)
        await bench.run()
        (row, *_) = await bench.rows()
        assert row == {
            "id": "batch_req_1_1",
            "custom_id": "r1",
            "line": 1,
            "response": None,
            "error": {
                "code": "batch_cancelled",
                "message": "the batch was cancelled before this request was completed",
                "param": None,
            },
        }

    async def test_batch_cancelled_during_its_validation_has_a_row_for_every_line(self, bench: Bench) -> None:
        await bench.create(lines_as_file([good_line(1)] * 3))
        await bench.batches.cancel(BATCH)
        record = await bench.run()
        assert (record.status, record.lines, record.rows_failed) == (BatchStatus.CANCELLED, 3, 3)
        assert record.errors == ()

    async def test_jobs_of_lines_that_are_stopped_are_deleted(self, bench: Bench) -> None:
        submitted: list[str] = []

        async def wait(job_id: str) -> None:
            submitted.append(job_id)
            await never(0)

        await bench.create(TEN)
        task = await bench.start(LinesWithJobs(bench.jobs, wait))
        await wait_until(lambda: len(submitted) == 10)
        await bench.batches.cancel(BATCH)
        async with asyncio.timeout(5):
            await task
        assert set((await bench.jobs.statuses(submitted)).values()) == {None}

    async def test_batch_whose_jobs_expire_is_expired(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also when the runner has not yet seen that the time is up."""
        monkeypatch.setattr("api.batches.batch_writer.RENEW_SECONDS", 60)

        class Expired(StubLines):
            async def run(self, line: Any, batch: Any, jobs: Any) -> Any:
                return unfinished(line.number, None, 2, BATCH, Unfinished.EXPIRED)

        await bench.create(TEN)
        assert (await bench.run(Expired())).status is BatchStatus.EXPIRED


@pytest.mark.usefixtures("small_segments")
async def test_jobs_are_deleted_once_their_rows_are_stored(bench: Bench) -> None:
    submitted: list[str] = []

    async def note(job_id: str) -> None:
        submitted.append(job_id)

    await bench.create(TEN)
    record = await bench.run(LinesWithJobs(bench.jobs, note))
    assert record.rows_ok == len(submitted) == 10
    assert set((await bench.jobs.statuses(submitted)).values()) == {None}


async def test_progress_is_ahead_of_the_cursor(bench: Bench) -> None:
    async def answer(number: int) -> None:
        if number > 6:
            await never(number)

    await bench.create(TEN)
    task = await bench.start(StubLines(answer))

    async def seen() -> bool:
        return (await bench.read()).rows_seen == 6

    await wait_until(seen)
    record = await bench.read()
    assert (record.pairs_seen, record.cursor_line, json.dumps(record.rate > 0)) == (12, 0, "true")
    await cancel_and_wait([task])


async def test_many_short_lines_do_not_delay_the_lease(bench: Bench) -> None:
    """Lines that are parsed in microseconds do not keep the event loop to themselves."""
    await bench.create(b'{"custom_id":"a"}\n' * 58_000)
    task = await bench.start(StubLines(), max_lines=100_000)
    longest, at = 0.0, time.monotonic()
    while not task.done():
        await asyncio.sleep(0.001)
        longest, at = max(longest, time.monotonic() - at), time.monotonic()
    assert longest < 1.0
    assert (await bench.read()).errors[0].code == "duplicate_custom_id"
