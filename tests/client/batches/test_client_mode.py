"""`python -m client batch` in client mode ranks a file of requests, and continues after failures and interruptions."""

import json
import signal
import time
from pathlib import Path

import pytest

from infra.local.stack import Stack
from tests.client.batches.files import rows, write_batch
from tests.client.command import run, running_command


def wait_for_lines(path: Path, count: int) -> None:
    deadline = time.monotonic() + 20
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_file_of_requests_is_ranked_into_a_file_of_rankings(service: Stack, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_batch(source, 50)
    result = run(service, "batch", str(source), str(target), "--concurrency", "16", "--top-n", "1")
    assert (result.returncode, result.stderr) == (0, f"50 of 50 ranked, 0 failed: {target}\n")
    assert [row["custom_id"] for row in rows(target)] == [f"c{number}" for number in range(50)]
    best = [row["ranking"]["results"] for row in rows(target)]
    assert [len(results) for results in best] == [1] * 50
    assert [results[0]["document"]["text"] for results in best] == [f"word{number}" for number in range(50)]


def test_failed_lines_are_retried_by_the_next_run(service: Stack, tmp_path: Path) -> None:
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
    result = run(service, "batch", str(source), str(target))
    assert (result.returncode, result.stderr) == (1, f"2 of 5 ranked, 3 failed: {target}\n")
    first, second, *failed = rows(target)
    assert first["ranking"]["id"] == second["ranking"]["id"]
    assert [row["line"] for row in failed] == [5, 7, 9]
    assert [row["error"]["type"] for row in failed] == ["invalid_request", "model_not_found", "invalid_request"]

    source.write_text("\n\n".join([*lines[:2], *[json.dumps(good)] * 3]))
    result = run(service, "batch", str(source), str(target))
    assert result.stderr == f"2 of 5 were ranked by an earlier run\n5 of 5 ranked, 0 failed: {target}\n"
    assert [(row["line"], "ranking" in row) for row in rows(target)] == [(n, True) for n in (1, 3, 5, 7, 9)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_batch_continues_on_the_next_run(
    slow_service: Stack, tmp_path: Path, number: signal.Signals
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_batch(source, 8, number.name)
    with running_command(slow_service, "batch", str(source), str(target), "--concurrency", "2") as process:
        wait_for_lines(target, 2)
        interrupted_at = time.monotonic()
        process.send_signal(number)
        _, stderr = process.communicate(timeout=20)
        assert time.monotonic() - interrupted_at < 3
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "client: interrupted"
    assert "are left; run the same command to continue" in stderr
    assert "Traceback" not in stderr
    done = rows(target)
    assert 2 <= len(done) < 8

    result = run(slow_service, "batch", str(source), str(target), "--concurrency", "8")
    assert (result.returncode, f"{len(done)} of 8 were ranked by an earlier run" in result.stderr) == (0, True)
    assert [row["line"] for row in rows(target)] == list(range(1, 9))
    assert [row for row in rows(target) if row in done] == done


def test_truncated_last_row_is_ranked_again(service: Stack, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_batch(source, 3, "cut")
    run(service, "batch", str(source), str(target))
    target.write_text(target.read_text()[:-20])
    result = run(service, "batch", str(source), str(target))
    assert result.stderr.startswith("2 of 3 were ranked by an earlier run\n3 of 3 ranked")
    assert len(rows(target)) == 3


def test_existing_file_that_is_not_a_batch_output_is_unchanged(service: Stack, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "precious.jsonl"
    write_batch(source, 1)
    for precious in ('{"mine": 1}\n', "text\n"):
        target.write_text(precious)
        result = run(service, "batch", str(source), str(target))
        assert (result.returncode, target.read_text()) == (2, precious)
        assert "not the output of a batch" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "precious.jsonl"]


def test_unreachable_service_stops_the_batch_and_leaves_all_lines(service: Stack, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_batch(source, 3)
    result = run(service, "batch", str(source), str(target), "--url", "http://127.0.0.1:9", "--retries", "0")
    assert result.returncode == 1
    assert "3 of 3 are left" in result.stderr
    assert "no answer from" in result.stderr
    assert target.read_text() == ""
