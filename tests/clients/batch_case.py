"""The batches that clients run, and the checks of their results. Imports no client library and no rerankq code."""

import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.clients.case import DOCUMENTS, QUERY, TOP

ENDPOINT = "/v1/rerank"
WINDOW = "24h"
METADATA = {"purpose": "nightly", "team": "search"}
ENDED = ("completed", "failed", "expired", "cancelled")
QUERIES = (QUERY, "bear", "giant panda of China", "Who says hi?")
_SECONDS = 60.0
_POLL_SECONDS = 0.2
# vLLM's scores depend slightly on the other pairs in the same step.
_TOLERANCE = 1e-4


def requests(model: str) -> list[dict[str, Any]]:
    """The lines of a batch without errors, in the form of OpenAI's Batch API."""
    return [request(f"query-{number}", model, query) for number, query in enumerate(QUERIES)]


def request(custom_id: str, model: str, query: str = QUERY, documents: Sequence[str] = DOCUMENTS) -> dict[str, Any]:
    """One line. Without documents, the request is invalid."""
    body = {"model": model, "query": query, "documents": list(documents), "top_n": TOP}
    return {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}


def jsonl(lines: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def rows(content: str | bytes) -> list[dict[str, Any]]:
    """The rows of a downloaded file."""
    return [json.loads(line) for line in content.splitlines()]


def wait_for_end(read: Callable[[], Any]) -> Any:
    """Call `read` until it returns a batch that has ended, and return that batch. Raises AssertionError after 60 s."""

    def ended() -> Any:
        batch = read()
        return batch if batch.status in ENDED else None

    return wait_until(ended, "the batch did not end")


def wait_until(check: Callable[[], Any], problem: str) -> Any:
    """Call `check` until its result is true, and return the result. Raises AssertionError after 60 s."""
    deadline = time.monotonic() + _SECONDS
    while not (result := check()):
        assert time.monotonic() < deadline, problem
        time.sleep(_POLL_SECONDS)
    return result


def check_counts(batch: Any, *, completed: int, failed: int) -> None:
    """Check the status and the counts of an ended batch."""
    assert batch.status == "completed", f"{batch.status}: {batch.errors}"
    counts = batch.request_counts
    found = (counts.total, counts.completed, counts.failed)
    assert found == (completed + failed, completed, failed), f"counts {found}"


def check_output(output: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]], answers: Sequence[Any]) -> str:
    """Check that the rows are in the order of the lines, and equal the answers to the same requests.

    Returns a short summary. Raises AssertionError.
    """
    assert [row["custom_id"] for row in output] == [line["custom_id"] for line in lines]
    for row, answer in zip(output, answers, strict=True):
        assert row["error"] is None, row
        assert row["response"]["status_code"] == 200, row
        assert row["response"]["request_id"], row
        assert_same_ranking(row["response"]["body"], answer)
    return f"{len(output)} rows equal the answers of {ENDPOINT}"


def assert_same_ranking(body: dict[str, Any], answer: dict[str, Any]) -> None:
    """Check that two responses have the same fields, the same order and the same scores."""
    assert body.keys() == answer.keys(), f"{sorted(body)}, not {sorted(answer)}"
    found, expected = _ranking(body), _ranking(answer)
    assert [index for index, _ in found] == [index for index, _ in expected], f"{found}, not {expected}"
    for (_, score), (_, wanted) in zip(found, expected, strict=True):
        assert math.isclose(score, wanted, abs_tol=_TOLERANCE), f"{found}, not {expected}"


def _ranking(body: dict[str, Any]) -> list[tuple[int, float]]:
    """The indexes and scores of a response: in `results` or, as Voyage and vLLM's score route name it, in `data`."""
    ranked = body["results"] if "results" in body else body["data"]
    return [(row["index"], row["relevance_score"] if "relevance_score" in row else row["score"]) for row in ranked]
