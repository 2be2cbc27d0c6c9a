import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.prefer_header import WaitPreference, parse_prefer_header
from tests.shared.support import properties

NONE = WaitPreference()
ASYNC = WaitPreference(0, job_after=True)

pieces = st.lists(
    st.sampled_from(
        ["wait", "respond-async", "return", "=", ",", ";", '"', "\\", " ", "\t", "5", "-", ".", "é", "\xa0"]
    ),
    max_size=12,
).map("".join)


def waits(seconds: int) -> WaitPreference:
    return WaitPreference(seconds, job_after=True)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, NONE),
        ("", NONE),
        ("respond-async", ASYNC),
        ("RESPOND-Async", ASYNC),
        ("  respond-async  ", ASYNC),
        ("wait=10", waits(10)),
        ("Wait=10", waits(10)),
        ("wait = 10", waits(10)),
        ('wait="10"', waits(10)),
        ("wait=0", ASYNC),
        ("respond-async, wait=10", waits(10)),
        ("wait=10,respond-async", waits(10)),
        ("wait=10, wait=20", waits(10)),
        ("wait=10; strict", waits(10)),
        ("respond-async; wait=10", ASYNC),
        ("handling=lenient, wait=10", waits(10)),
        ('return="minimal", respond-async', ASYNC),
        ("return=minimal", NONE),
        ("awaiting=10", NONE),
        ("wait_for=10", NONE),
        ("wait", NONE),
        ("wait=", NONE),
        ('wait=""', NONE),
        ("wait=soon", NONE),
        ("wait=-1", NONE),
        ("wait=1.5", NONE),
        ("wait=soon, respond-async", ASYNC),
        (",,, ,", NONE),
        ("=10", NONE),
    ],
)
def test_a_prefer_header(header: str | None, expected: WaitPreference) -> None:
    assert parse_prefer_header(header) == expected


@pytest.mark.parametrize(
    ("header", "applied"),
    [
        (None, None),
        ("return=minimal", None),
        ("respond-async", "respond-async"),
        ("wait=0", "respond-async"),
        ("wait=10", "wait=10"),
        ("respond-async, wait=10", "wait=10"),
        ("wait=1000000", "wait=1000000"),
    ],
)
def test_what_applied_is_what_was_asked(header: str | None, applied: str | None) -> None:
    assert parse_prefer_header(header).applied == applied


@properties
@given(pieces)
def test_nothing_that_a_caller_sends_raises(header: str) -> None:
    preference = parse_prefer_header(header)
    assert preference.wait_seconds is None or preference.wait_seconds >= 0


def test_a_superscript_is_no_number() -> None:
    assert parse_prefer_header("wait=²") == NONE


def test_what_is_quoted_is_not_read() -> None:
    assert parse_prefer_header('note="a, wait=5"') == NONE


def test_a_name_is_matched_whole() -> None:
    assert parse_prefer_header("2wait=5") == NONE


@pytest.mark.parametrize(
    "header",
    [
        "respond-async," + " " * 6000 + "!",
        '"' * 6001,
        'a="' * 2001,
        '"' + '\\"' * 3000,
    ],
    ids=["spaces", "quotes", "unclosed", "escaped"],
)
def test_a_long_header_is_read_in_no_time(header: str) -> None:
    started = time.process_time()
    parse_prefer_header(header)
    assert time.process_time() - started < 0.05
