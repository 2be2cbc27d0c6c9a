"""When a failed delivery is tried again."""

import pytest

from api.webhooks.retries import RUNPOD_RETRIES, STANDARD_RETRIES, RetryPolicy

EXACT = RetryPolicy(jitter=0.0)
DAY = 86_400.0


def test_pauses_double_up_to_an_hour() -> None:
    pauses = [EXACT.pause(tries, 0.0) for tries in (1, 2, 3, 10, 11, 1000)]
    assert pauses == [5.0, 10.0, 20.0, 2560.0, 3600.0, 3600.0]


def test_pauses_differ_by_a_fifth_at_most() -> None:
    pauses = {STANDARD_RETRIES.pause(3, 0.0) for _ in range(100)}
    assert len(pauses) > 90
    assert all(pause is not None and 16.0 <= pause <= 24.0 for pause in pauses)


def test_retry_after_makes_a_pause_longer_but_not_shorter() -> None:
    assert EXACT.pause(1, 0.0, retry_after=60.0) == 60.0
    assert EXACT.pause(1, 0.0, retry_after=1.0) == 5.0


def test_the_last_try_is_at_the_end_of_the_time() -> None:
    assert EXACT.pause(30, DAY - 100.0) == 100.0
    assert EXACT.pause(30, DAY - 100.0, retry_after=1e9) == 100.0
    assert EXACT.pause(31, DAY) is None


@pytest.mark.parametrize(("tries", "pause"), [(1, 10.0), (2, 10.0), (3, None)])
def test_runpods_form_is_tried_twice_more_ten_seconds_apart(tries: int, pause: float | None) -> None:
    assert RUNPOD_RETRIES.pause(tries, 0.0) == pause
