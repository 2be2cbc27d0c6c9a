"""The checks of a batch report rows that are missing, repeated, out of order or wrong, and objects left over."""

from copy import deepcopy
from pathlib import Path

import pytest
from redis import Redis

from shared.keys import batch_keys
from shared.ledger.batch_record import Segment
from tests.chaos.batches.checks import Row, check_batch, check_objects, check_rows, check_sweep, compare_rows
from tests.chaos.batches.client import custom_id
from tests.chaos.cases import Case, make_line
from tests.chaos.report import ReportRow

CASES = [make_line(1, number, 5) for number in (1, 2, 3)]
SEGMENT = Segment("space/batches/batch_1/first", 3, 100, 0)


def make_row(case: Case) -> Row:
    """The row of a line that was ranked as expected."""
    results = [{"index": index, "relevance_score": score} for index, score in case.expected()]
    body = {"id": f"job-{case.number}", "created": 1700000000, "model": "chaos", "results": results}
    response = {"status_code": 200, "request_id": f"job-{case.number}", "body": body}
    return {
        "id": f"batch_req_{case.number}",
        "custom_id": custom_id(case),
        "line": case.number,
        "response": response,
        "error": None,
    }


@pytest.fixture
def rows() -> list[Row]:
    return [make_row(case) for case in CASES]


def check(rows: list[Row]) -> ReportRow:
    report = ReportRow("batch")
    check_rows(rows, CASES, report)
    return report


def test_all_lines_in_order_cause_no_problem(rows: list[Row]) -> None:
    assert check(rows).problems == []


def test_a_missing_line_is_lost(rows: list[Row]) -> None:
    assert len(check(rows[:1] + rows[2:]).lost) == 1


def test_a_repeated_line_is_duplicated(rows: list[Row]) -> None:
    assert len(check([rows[0], *rows]).duplicated) == 1


def test_another_order_is_wrong(rows: list[Row]) -> None:
    assert check(rows[::-1]).wrong == ["the results are not in the order of the input"]


def test_a_line_with_the_result_of_another_line_is_wrong(rows: list[Row]) -> None:
    rows[0]["response"], rows[1]["response"] = rows[1]["response"], rows[0]["response"]
    assert len(check(rows).wrong) == 2


def test_a_failed_line_is_wrong(rows: list[Row]) -> None:
    rows[1]["error"] = {"code": "internal_error"}
    assert len(check(rows).wrong) == 1


def test_rows_that_differ_only_in_ids_and_times_are_equal(rows: list[Row]) -> None:
    others = deepcopy(rows)
    for other in others:
        other["id"] = other["response"]["request_id"] = other["response"]["body"]["id"] = "another"
        other["response"]["body"]["created"] += 60
    assert compare_rows(rows, others) == []
    others[2]["response"]["body"]["model"] = "another"
    assert len(compare_rows(rows, others)) == 1


def test_a_batch_with_an_error_file_or_other_counts_is_wrong() -> None:
    counts = {"total": 3, "completed": 3, "failed": 0}
    batch: Row = {"status": "completed", "request_counts": counts, "error_file_id": None, "errors": None}
    assert check_batch(batch, 3) == []
    assert len(check_batch(batch | {"error_file_id": "file-1"}, 3)) == 1
    assert len(check_batch(batch, 4)) == 1
    assert len(check_batch(batch | {"status": "expired"}, 3)) == 1


def test_a_missing_segment_and_too_many_other_objects_are_reported(tmp_path: Path) -> None:
    folder = tmp_path / "space" / "batches" / "batch_1"
    folder.mkdir(parents=True)
    assert len(check_objects(tmp_path, "batch_1", [SEGMENT], 0)) == 1
    (folder / "first").write_text("rows")
    (folder / "of-an-interrupted-write").write_text("rows")
    assert check_objects(tmp_path, "batch_1", [SEGMENT], 1) == []
    assert len(check_objects(tmp_path, "batch_1", [SEGMENT], 0)) == 1


def test_an_object_that_the_sweeper_leaves_is_reported(tmp_path: Path, redis_client: Redis) -> None:
    port = redis_client.connection_pool.connection_kwargs["port"]
    assert check_sweep(tmp_path, port) == []
    namespace = next(tmp_path.iterdir())
    folder = namespace / "batches" / "batch_1"
    folder.mkdir(parents=True)
    (folder / "first").write_text("rows")
    redis_client.hset(batch_keys.batch("batch_1"), "kind", "batch")
    assert len(check_sweep(tmp_path, port)) == 1
    redis_client.delete(batch_keys.batch("batch_1"))
    assert check_sweep(tmp_path, port) == []
