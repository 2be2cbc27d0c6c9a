import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from api.http.request_headers import WaitPreference, parse_prefer_header, read_idempotency_key
from shared.errors import InvalidRequest
from tests.shared.support import properties

NONE = WaitPreference()
ASYNC = WaitPreference(0, job_after=True)

header_texts = st.lists(
    st.sampled_from(
        ["wait", "respond-async", "return", "=", ",", ";", '"', "\\", " ", "\t", "5", "-", ".", "é", "\xa0"]
    ),
    max_size=12,
).map("".join)


def wait(seconds: int) -> WaitPreference:
    return WaitPreference(seconds, job_after=True)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, NONE),
        ("", NONE),
        ("respond-async", ASYNC),
        ("RESPOND-Async", ASYNC),
        ("  respond-async  ", ASYNC),
        ("wait=10", wait(10)),
        ("Wait=10", wait(10)),
        ("wait = 10", wait(10)),
        ('wait="10"', wait(10)),
        ("wait=0", ASYNC),
        ("respond-async, wait=10", wait(10)),
        ("wait=10,respond-async", wait(10)),
        ("wait=10, wait=20", wait(10)),
        ("wait=10; strict", wait(10)),
        ("respond-async; wait=10", ASYNC),
        ("handling=lenient, wait=10", wait(10)),
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
def test_prefer_header_is_parsed(header: str | None, expected: WaitPreference) -> None:
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
def test_applied_names_the_preference_in_effect(header: str | None, applied: str | None) -> None:
    assert parse_prefer_header(header).applied == applied


@properties
@given(header_texts)
def test_no_header_raises(header: str) -> None:
    preference = parse_prefer_header(header)
    assert preference.wait_seconds is None or preference.wait_seconds >= 0


def test_superscript_digits_are_ignored() -> None:
    assert parse_prefer_header("wait=²") == NONE


def test_preferences_inside_quotes_are_ignored() -> None:
    assert parse_prefer_header('note="a, wait=5"') == NONE


def test_name_must_match_completely() -> None:
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
def test_long_header_is_parsed_quickly(header: str) -> None:
    started = time.process_time()
    parse_prefer_header(header)
    assert time.process_time() - started < 0.05


def request_with_keys(*keys: str) -> Request:
    headers = [(b"idempotency-key", key.encode("latin-1")) for key in keys]
    return Request({"type": "http", "method": "POST", "headers": headers})


class TestIdempotencyKey:
    def test_key_is_optional(self) -> None:
        assert read_idempotency_key(request_with_keys()) is None

    @pytest.mark.parametrize("key", ["8e03978e-40d5-43dd-bc93-6894a57f9324", '"quoted"', "x", "x" * 255])
    def test_key_is_returned_unchanged(self, key: str) -> None:
        assert read_idempotency_key(request_with_keys(key)) == key

    @pytest.mark.parametrize("key", ["", "x" * 256, "x" * 10_000])
    def test_empty_or_too_long_key_is_rejected(self, key: str) -> None:
        with pytest.raises(InvalidRequest, match="must have 1 to 255 characters") as caught:
            read_idempotency_key(request_with_keys(key))
        assert caught.value.param == "Idempotency-Key"
