"""The rows of earlier runs, and how they and the service's results become the output file."""

import json
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from client.batches.earlier_rows import EarlierRows
from client.batches.input_lines import BatchLine, InputFile, row_text
from client.batches.merge import write_output
from client.documents import UsageError
from client.errors import JobError


@pytest.fixture
def source(tmp_path: Path) -> InputFile:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f'{{"query": "q{number}", "documents": ["d"]}}\n' for number in range(1, 5)))
    return InputFile(path, {})


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def lines_of(source: InputFile) -> list[BatchLine]:
    return list(source.lines())


def test_rankings_of_the_same_requests_are_kept(source: InputFile, target: Path) -> None:
    first, second, third, fourth = lines_of(source)
    outdated = third.__class__(3, None, first.key, third.request, b"")
    texts = [row_text(fourth, ranking={"id": "4"}), row_text(second, error={}), row_text(outdated, ranking={})]
    target.write_bytes(b"".join(texts) + row_text(first, ranking={"id": "1"})[:-5])
    with closing(EarlierRows(target)) as earlier:
        assert [earlier.has(line) for line in lines_of(source)] == [False, False, False, True]
        assert earlier.row(4) == texts[0]


def test_missing_output_has_no_rows(source: InputFile, target: Path) -> None:
    assert not any(EarlierRows(target).has(line) for line in lines_of(source))


@pytest.mark.parametrize("text", ["text\n", "[]\n", '{"mine": 1}\n', '{"line": -1, "key": "a"}\n', '{"line": "1"}\n'])
def test_other_files_are_rejected(target: Path, text: str) -> None:
    target.write_text(text)
    with pytest.raises(UsageError, match="not the output of a batch"):
        EarlierRows(target)


def result(line: int, **fields: Any) -> bytes:
    return json.dumps({"line": line, "custom_id": None, "error": None} | fields).encode() + b"\n"


def test_each_line_gets_the_row_of_the_service_or_of_an_earlier_run(source: InputFile, target: Path) -> None:
    lines = lines_of(source)
    target.write_bytes(row_text(lines[3], ranking={"id": "old 4"}) + row_text(lines[0], ranking={"id": "old 1"}))
    output = BytesIO(result(1, response={"status_code": 200, "body": {"id": "new 1"}}))
    failed = {"code": "scoring_failed", "message": "the engine failed", "param": None}
    errors = BytesIO(result(2, response={"status_code": 500, "body": {}}, error=failed))
    with closing(EarlierRows(target)) as earlier:
        totals = write_output(source, target, output, errors, earlier, JobError("no result", code="missing"))
    assert (totals.total, totals.failed) == (4, 2)
    rows = [json.loads(text) for text in target.read_text().splitlines()]
    assert [row["key"] for row in rows] == [line.key for line in lines]
    assert [row.get("ranking") or row["error"] for row in rows] == [
        {"id": "new 1"},
        {"type": "scoring_failed", "message": "the engine failed", "status": 500},
        {"type": "missing", "message": "no result", "status": None},
        {"id": "old 4"},
    ]


def test_damaged_result_file_leaves_the_output_unchanged(source: InputFile, target: Path) -> None:
    target.write_bytes(before := row_text(lines_of(source)[0], ranking={}))
    with pytest.raises(Exception, match="not a row of a batch"):
        write_output(source, target, BytesIO(b"<html>\n"), BytesIO(), EarlierRows(target), JobError(""))
    assert target.read_bytes() == before
    assert not target.with_name("out.jsonl.part").exists()
