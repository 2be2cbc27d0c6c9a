"""`python -m client batch`: a file of requests into a file of rankings, whatever comes between."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from infra.local.stack import Stack
from tests.client.command import run, started


def wait_for_lines(path: Path, count: int) -> None:
    deadline = time.monotonic() + 20
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def write_batch(path: Path, count: int, word: str = "word") -> None:
    lines = [
        {"custom_id": f"c{number}", "query": f"{word}{number}", "documents": [f"{word}{number}", f"{word}{number + 1}"]}
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def rows(path: Path) -> list[dict[str, Any]]:
    return sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda row: int(row["line"]))


def test_a_file_of_requests_becomes_a_file_of_rankings(service: Stack, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_batch(source, 50)
    ended = run(service, "batch", str(source), str(target), "--concurrency", "16", "--top-n", "1")
    assert (ended.returncode, ended.stderr) == (0, f"50 of 50 ranked, 0 failed: {target}\n")
    assert [row["custom_id"] for row in rows(target)] == [f"c{number}" for number in range(50)]
    best = [row["ranking"]["results"] for row in rows(target)]
    assert [len(results) for results in best] == [1] * 50
    assert [results[0]["document"]["text"] for results in best] == [f"word{number}" for number in range(50)]


def test_what_fails_fails_alone_and_is_tried_again_by_the_next_run(service: Stack, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    good = {"custom_id": 1, "query": "panda", "documents": ["a panda"]}
    openai = {"custom_id": "2", "method": "POST", "url": "/v1/rerank", "body": {k: good[k] for k in list(good)[1:]}}
    lines = [
        json.dumps(good),
        json.dumps(openai),
        "no json",
        json.dumps(good | {"model": "nope"}),
        '{"query": "q"}',
    ]
    source.write_text("\n\n".join(lines))
    ended = run(service, "batch", str(source), str(target))
    assert (ended.returncode, ended.stderr) == (1, f"2 of 5 ranked, 3 failed: {target}\n")
    first, second, *failed = rows(target)
    assert first["ranking"]["id"] == second["ranking"]["id"]
    assert [row["line"] for row in failed] == [5, 7, 9]
    assert [row["error"]["type"] for row in failed] == ["invalid_request", "model_not_found", "invalid_request"]

    source.write_text("\n\n".join([*lines[:2], *[json.dumps(good)] * 3]))
    ended = run(service, "batch", str(source), str(target))
    assert ended.stderr == f"2 of 5 were ranked by an earlier run\n5 of 5 ranked, 0 failed: {target}\n"
    assert [(row["line"], "ranking" in row) for row in rows(target)] == [(n, True) for n in (1, 3, 5, 7, 9)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_goes_on_where_it_was(slow_service: Stack, tmp_path: Path, number: signal.Signals) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_batch(source, 8, number.name)
    with started(slow_service, "batch", str(source), str(target), "--concurrency", "2") as process:
        wait_for_lines(target, 2)
        asked = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
        assert time.monotonic() - asked < 3
    assert process.returncode == 130
    assert said.splitlines()[-1] == "client: interrupted"
    assert "are left; run the same command to continue" in said
    assert "Traceback" not in said
    done = rows(target)
    assert 2 <= len(done) < 8

    ended = run(slow_service, "batch", str(source), str(target), "--concurrency", "8")
    assert (ended.returncode, f"{len(done)} of 8 were ranked by an earlier run" in ended.stderr) == (0, True)
    assert [row["line"] for row in rows(target)] == list(range(1, 9))
    assert [row for row in rows(target) if row in done] == done


def test_a_row_that_was_cut_off_is_written_anew(service: Stack, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_batch(source, 3, "cut")
    run(service, "batch", str(source), str(target))
    target.write_text(target.read_text()[:-20])
    ended = run(service, "batch", str(source), str(target))
    assert ended.stderr.startswith("2 of 3 were ranked by an earlier run\n3 of 3 ranked")
    assert len(rows(target)) == 3


def test_a_file_that_no_batch_has_written_is_left_alone(service: Stack, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "precious.jsonl"
    write_batch(source, 1)
    for precious in ('{"mine": 1}\n', "text\n"):
        target.write_text(precious)
        ended = run(service, "batch", str(source), str(target))
        assert (ended.returncode, target.read_text()) == (2, precious)
        assert "not the output of a batch" in ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "precious.jsonl"]


def test_when_nobody_is_there_it_ends_at_once_and_loses_nothing(service: Stack, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_batch(source, 3)
    ended = run(service, "batch", str(source), str(target), "--url", "http://127.0.0.1:9", "--retries", "0")
    assert ended.returncode == 1
    assert "3 of 3 are left" in ended.stderr
    assert "no answer from" in ended.stderr
    assert target.read_text() == ""
