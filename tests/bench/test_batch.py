"""The parts of `make bench-batch`: its inputs, the checks of outputs, and its report; and two cases in a short form."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.batch.__main__ import RESULT, parse, run
from bench.batch.cases import CASES, LEDGER, MEMORY, ORDER, ledger_rows, memory_rows
from bench.batch.context import FULL, QUICK, Context
from bench.batch.inputs import DOCUMENT_WORDS, VOCABULARY, Inputs, Shape, check_client_rows, check_rows, custom_id
from bench.batch.report import Measurement, Report, table
from bench.batch.sampling import Peaks, RedisTime, peak_memory, restart_peak
from bench.batch.service import BatchOutcome, Deadline
from bench.generator import MeasurementFailed
from bench.words import QUERY_WORDS, VOCABULARY_SIZE

SHAPE = Shape(lines=3, documents=2)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(QUICK, Inputs(tmp_path), tmp_path, tell=lambda _: None, deadline=Deadline(60))


def test_an_input_has_one_distinct_request_per_line(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in Inputs(tmp_path).path(Shape(50, 4)).read_bytes().splitlines()]
    assert [line["custom_id"] for line in lines] == [custom_id(number) for number in range(1, 51)]
    assert {line["url"] for line in lines} == {"/v1/rerank"}
    bodies = [line["body"] for line in lines]
    documents = [document for body in bodies for document in body["documents"]]
    assert len({body["query"] for body in bodies}) == 50
    assert len(set(documents)) == 200
    assert {len(document.split()) for document in documents} == {DOCUMENT_WORDS}
    assert {len(body["query"].split()) for body in bodies} == {QUERY_WORDS}


def test_the_words_are_distinct() -> None:
    assert len(VOCABULARY) == len(set(VOCABULARY)) == VOCABULARY_SIZE


def test_the_same_seed_gives_the_same_file_and_a_file_is_written_once(tmp_path: Path) -> None:
    inputs = Inputs(tmp_path)
    path = inputs.path(SHAPE)
    (tmp_path / "again").mkdir()
    assert Inputs(tmp_path / "again").path(SHAPE).read_bytes() == path.read_bytes()
    path.write_text("kept")
    assert inputs.path(SHAPE).read_text() == "kept"


def test_the_client_gets_the_first_lines_of_the_same_file(tmp_path: Path) -> None:
    inputs = Inputs(tmp_path)
    assert inputs.first_lines(SHAPE, 2).read_bytes().splitlines() == inputs.path(SHAPE).read_bytes().splitlines()[:2]


def row(number: int, documents: int = SHAPE.documents, error: Any = None) -> bytes:
    results = [{"index": index, "relevance_score": 0.5} for index in reversed(range(documents))]
    response = {"status_code": 200 if error is None else 400, "body": {"results": results}}
    return json.dumps({"custom_id": custom_id(number), "response": response, "error": error}).encode()


def test_a_complete_output_passes() -> None:
    check_rows([row(1), row(2), row(3)], SHAPE)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1), row(3), row(2)], "row 2 has the custom_id 'request-3'"),
        ([row(1), row(2)], "the output has 2 rows, not 3"),
        ([row(1), row(1)], "row 2 has the custom_id 'request-1'"),
        ([row(1, error={"code": "invalid_request"})], "row 1 has failed"),
        ([row(1, documents=1)], "row 1 does not rank 2 documents"),
        ([row(1), row(2).replace(b'"index": 0', b'"index": 1')], "row 2 does not rank 2 documents"),
    ],
)
def test_a_wrong_output_fails(rows: list[bytes], message: str) -> None:
    with pytest.raises(MeasurementFailed, match=message):
        check_rows(rows, SHAPE)


def test_the_client_must_have_ranked_each_line_once_in_any_order() -> None:
    ranked = [json.dumps({"line": line, "ranking": {}}).encode() for line in (2, 1, 3)]
    check_client_rows(ranked, 3)
    for wrong in (ranked[:2], [*ranked[:2], ranked[0]], [*ranked[:2], b'{"line": 3, "error": {}}']):
        with pytest.raises(MeasurementFailed, match="of 3 lines"):
            check_client_rows(wrong, 3)


def test_the_rate_from_the_first_row_ignores_the_time_before_it() -> None:
    assert BatchOutcome(13.0, 7.7, [(0.0, 0), (3.0, 10), (5.0, 30), (13.0, 100)]).rate_from_first_row() == 9.0
    assert BatchOutcome(3.0, 33.3, [(0.0, 0), (3.0, 100)]).rate_from_first_row() is None


def test_a_deadline_fails_the_case_when_it_has_passed() -> None:
    assert Deadline(60).left(at_most=5) == 5
    deadline = Deadline(0.01)
    time.sleep(0.02)
    with pytest.raises(MeasurementFailed, match="not ended within"):
        deadline.left()


def test_peaks_keep_the_larger_value_of_each() -> None:
    peaks = Peaks(api=5, runner=1, redis=7)
    peaks.merge(Peaks(api=3, runner=9, redis=7))
    assert peaks == Peaks(api=5, runner=9, redis=7)


def test_a_restarted_peak_counts_what_is_allocated_afterwards() -> None:
    before = restart_peak(os.getpid())
    held = b"x" * (32 << 20)
    assert 30 << 20 < peak_memory(os.getpid()) - before < 64 << 20
    assert len(held)


def test_the_time_of_redis_is_that_between_two_readings_per_line() -> None:
    assert RedisTime(900, 700, 500).since(RedisTime(100, 100, 100), 4) == RedisTime(200, 150, 100)


def test_memory_is_met_when_each_process_is_below_the_limit(context: Context) -> None:
    assert memory_rows(context) == []
    context.peaks = Peaks(api=100 << 20, runner=200 << 20, redis=299 << 20)
    (line,) = memory_rows(context)
    assert line.measured == "API 100 MiB, runner 200 MiB, Redis 299 MiB"
    assert line.met
    context.peaks = Peaks(api=100 << 20, runner=301 << 20, redis=1)
    assert memory_rows(context)[0].met is False


def test_the_ledgers_cost_gives_the_ceiling_of_one_core(context: Context) -> None:
    assert ledger_rows(context) == []
    context.redis_time = {QUICK.pairs: RedisTime(500, 400, 300), QUICK.lines: RedisTime(250, 200, 150)}
    long, short = ledger_rows(context)
    assert long.measured == "500 us (300 us in scripts); 2,000 shards/s, 200,000 pairs/s"
    assert short.measured == "250 us (150 us in scripts); 4,000 shards/s"
    assert long.verdict == short.verdict == ""


def test_the_table_has_the_groups_in_order_and_a_verdict_for_each_target() -> None:
    report = Report(("first", "second"), {})
    report.add("second", [Measurement("b", "3", "<= 2", False), Measurement("c", "4", "printed", None)])
    assert not report.all_met
    report.add("first", [Measurement("a", "1", "<= 2", True)])
    lines = table(report.rows).splitlines()
    assert lines[2:] == ["| a | 1 | <= 2 | met |", "| b | 3 | <= 2 | missed |", "| c | 4 | printed |  |"]


def test_the_json_has_all_rows_and_what_is_missing(tmp_path: Path) -> None:
    report = Report(("a", "b"), {"quick": True})
    report.add("a", [Measurement("a", "1", "<= 2", True, {"seconds": 1.0})])
    report.write(tmp_path / "batch.json", unmeasured=["b"])
    written = json.loads((tmp_path / "batch.json").read_text())
    assert written["unmeasured"] == ["b"]
    assert written["cases"][0]["figures"] == {"seconds": 1.0}
    assert written["settings"] == {"quick": True}
    assert {"date", "machine", "versions", "failures"} <= written.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["batch.json"]


@pytest.mark.parametrize(
    ("arguments", "cases", "output"),
    [
        ([], list(CASES), RESULT),
        (["--quick"], list(CASES), None),
        (["--only", "upload", "pairs"], ["pairs", "upload"], None),
        (["--quick", "--output", "some.json"], list(CASES), Path("some.json")),
    ],
)
def test_only_a_complete_run_writes_a_file_by_default(
    arguments: list[str], cases: list[str], output: Path | None
) -> None:
    options = parse(arguments)
    assert (options.only, options.output) == (cases, output)


def test_every_case_has_its_place_in_the_table() -> None:
    assert sorted(ORDER) == sorted([*CASES, MEMORY, LEDGER])
    assert FULL.pairs.pairs == FULL.lines.pairs == 1_000_000


@pytest.fixture
def clean_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("RERANKQ_") or name == "REDIS_URL":
            monkeypatch.delenv(name)


@pytest.mark.slow
@pytest.mark.usefixtures("clean_settings")
def test_cases_run_on_a_real_service_and_a_failed_one_does_not_stop_the_others(
    context: Context, tmp_path: Path
) -> None:
    # The second case fails: its batch ends before the calls do.
    sizes = replace(QUICK, lines=Shape(300, 1), beside=Shape(1, 1), calls=20, upload_blocks=4)
    context.sizes = sizes
    report = Report(ORDER, {})
    run(["lines", "interactive", "upload"], context, report, tmp_path / "batch.json")
    written = json.loads((tmp_path / "batch.json").read_text())
    assert written["unmeasured"] == []
    (failure,) = written["failures"]
    assert failure.startswith("interactive: the batch ended before the calls did")
    titles = [line["what"] for line in written["cases"]]
    assert [title.split(":")[0] for title in titles] == [
        "300 lines of one document, lexical",
        "memory during all lexical cases, highest",
        "upload of 4 MiB",
        "upload of 4 MiB",
        "processor time of Redis per shard of 1 document; what one core allows",
    ]
    assert context.peaks.api > 20 << 20
    assert context.peaks.redis > 1 << 20
