"""The bodies that create batches and jobs of many requests."""

from typing import Any

import pytest

from api.batches.creation import MAX_METADATA, read_batch, read_bulk_job, seconds_of
from shared.errors import InvalidRequest
from shared.ledger.batch_record import Wake

BATCH = {"input_file_id": "file-1", "endpoint": "/v1/rerank"}
JOB: dict[str, Any] = {"requests": [{}]}


@pytest.mark.parametrize(
    ("window", "seconds"), [("24h", 86_400), ("1s", 1), ("30d", 30 * 86_400), (" 7D ", 7 * 86_400), ("90m", 5400)]
)
def test_windows(window: str, seconds: float) -> None:
    assert seconds_of(window) == seconds
    assert read_batch(BATCH | {"completion_window": window}).completion_window == window


@pytest.mark.parametrize("window", ["", "24", "h", "0h", "31d", "-1h", "1.5h", "24h24h", "999999999h", "1w", "٣h", 24])
def test_other_windows_are_errors(window: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^completion_window: ") as raised:
        read_batch(BATCH | {"completion_window": window})
    assert raised.value.param == "completion_window"


@pytest.mark.parametrize(("deadline", "window"), [("1h", "1h"), (3600, "3600s"), (0.2, "1s"), (1.5, "2s")])
def test_deadline_is_a_window_or_seconds(deadline: Any, window: str) -> None:
    assert read_bulk_job(JOB | {"deadline": deadline}).deadline == window


@pytest.mark.parametrize("deadline", [0, -1, 31 * 86_400, True, "soon", [], 1e300])
def test_other_deadlines_are_errors(deadline: Any) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_bulk_job(JOB | {"deadline": deadline})
    assert raised.value.param == "deadline"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_file_id", None),
        ("input_file_id", ""),
        ("input_file_id", 7),
        ("endpoint", None),
        ("metadata", []),
        ("metadata", {"a": 1}),
        ("metadata", {"a": "x" * 513}),
        ("metadata", {"x" * 65: "a"}),
        ("metadata", {str(number): "" for number in range(MAX_METADATA + 1)}),
        ("request_params", []),
        ("output_expires_after", {"anchor": "created_at"}),
        ("output_expires_after", {"anchor": "created_at", "seconds": 59}),
        ("output_expires_after", {"anchor": "now", "seconds": 3600}),
    ],
)
def test_wrong_field_of_a_batch_is_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}: ") as raised:
        read_batch(BATCH | {field: value})
    assert raised.value.param == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("requests", None),
        ("requests", []),
        ("requests", [7]),
        ("requests", {}),
        ("model", 7),
        ("defaults", "x"),
        ("wake", "never"),
        ("metadata", {"a": None}),
    ],
)
def test_wrong_field_of_a_job_is_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}: ") as raised:
        read_bulk_job(JOB | {field: value})
    assert raised.value.param == field


def test_model_is_a_default() -> None:
    assert read_bulk_job(JOB).all_defaults is None
    body = read_bulk_job(JOB | {"model": "m", "defaults": {"model": "other", "top_n": 2}, "wake": "when_warm"})
    assert (body.all_defaults, body.wake) == ({"model": "m", "top_n": 2}, Wake.WHEN_WARM)


def test_unknown_and_absent_fields_are_ignored() -> None:
    assert read_batch(BATCH | {"extra": 1, "metadata": None, "completion_window": None}).completion_window == "24h"
