"""Uploads whose bodies are made here. tests/api/http/test_multipart_server.py sends uploads to a real server."""

import gc
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import api.http.multipart
from api.http.multipart import MAX_FIELD_BYTES, MAX_FIELDS, MAX_OVERHEAD_BYTES, MultipartUpload
from shared.errors import InvalidRequest, PayloadTooLarge, RequestTimedOut
from tests.api.http.multipart_bodies import (
    BOUNDARY,
    CLOSING,
    CONTENT,
    form,
    make_request,
    part,
    receive_body,
    receive_upload,
    unclosed_form,
)
from tests.shared.support import properties

FILE = part("file", CONTENT, "panda.jsonl", b"Content-Type: application/jsonl")
PURPOSE = part("purpose", b"batch")
BODY = form(PURPOSE, FILE, part("expires_after[anchor]", b"created_at"))


async def test_fields_may_come_before_and_after_the_file() -> None:
    received = await receive_body(form(PURPOSE, FILE, part("expires_after[seconds]", b"3600")), size=10)
    assert received.filename == "panda.jsonl"
    assert received.content == CONTENT
    assert received.early_fields == {"purpose": "batch"}
    assert received.fields == {"purpose": "batch", "expires_after[seconds]": "3600"}


@pytest.mark.parametrize("size", range(1, len(BODY)))
async def test_body_is_parsed_alike_in_chunks_of_any_size(size: int) -> None:
    received = await receive_body(BODY, size=size)
    assert (received.filename, received.content) == ("panda.jsonl", CONTENT)
    assert received.fields == {"purpose": "batch", "expires_after[anchor]": "created_at"}


@pytest.mark.parametrize("position", range(1, len(BODY)))
async def test_body_is_parsed_alike_when_it_is_split_anywhere(position: int) -> None:
    received = await receive_upload(make_request([BODY[:position], b"", BODY[position:]]))
    assert received.content == CONTENT
    assert received.fields == {"purpose": "batch", "expires_after[anchor]": "created_at"}


@pytest.mark.parametrize("length", range(len(BODY) - len(b"\r\n")))
async def test_body_that_is_cut_off_anywhere_is_incomplete(length: int) -> None:
    with pytest.raises(InvalidRequest, match="the upload is incomplete"):
        await receive_body(BODY[:length])


LOOK_ALIKES = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n--",
    b"\r\n--" + BOUNDARY[:-1],
    b"\r\n--" + BOUNDARY + b"x",
    b"--" + BOUNDARY,
]
contents = st.lists(st.one_of(st.sampled_from(LOOK_ALIKES), st.binary(max_size=8)), max_size=12).map(b"".join)


@properties
@given(
    content=contents.filter(lambda content: b"\r\n--" + BOUNDARY not in content.replace(BOUNDARY + b"x", b"")),
    fields=st.dictionaries(st.text("abc[]", min_size=1, max_size=8), st.text(max_size=20), max_size=5),
    place=st.integers(0, 5),
    size=st.integers(1, 200),
)
async def test_any_content_arrives_unchanged(content: bytes, fields: dict[str, str], place: int, size: int) -> None:
    parts = [part(name, value.encode()) for name, value in fields.items()]
    parts.insert(place, part("file", content, "x"))
    received = await receive_body(form(*parts), size=size)
    assert received.content == content
    assert received.fields == fields
    assert len(received.early_fields) >= min(place, len(fields))


@properties
@given(body=st.lists(st.one_of(st.binary(max_size=20), st.sampled_from([FILE, PURPOSE, *LOOK_ALIKES]))).map(b"".join))
async def test_random_body_is_rejected_and_never_fails_otherwise(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        await receive_body(b"--" + BOUNDARY + b"\r\n" + body)


async def test_text_around_the_form_is_ignored() -> None:
    received = await receive_body(b"\r\n" + BODY + b"an epilogue\r\n--" + BOUNDARY + b"\r\n")
    assert received.content == CONTENT


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "multipart/mixed; boundary=x", "multipart/form-data", "multipart/form-data; boundary="],
)
async def test_content_type_without_a_form_and_its_boundary_is_rejected(content_type: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        MultipartUpload(make_request([], content_type=content_type), max_file_bytes=1)
    assert error.value.param == "Content-Type"


async def test_too_long_boundary_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match="boundary in Content-Type is too long"):
        MultipartUpload(
            make_request([], content_type="multipart/form-data; boundary=" + "x" * 300),
            max_file_bytes=1,
        )


async def test_compressed_upload_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match="must not have a Content-Encoding") as error:
        MultipartUpload(make_request([], content_encoding="gzip"), max_file_bytes=1)
    assert error.value.param == "Content-Encoding"
    assert (await receive_upload(make_request([BODY], content_encoding="identity"))).content == CONTENT


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (form(PURPOSE), "file", "the field 'file' with the file is missing"),
        (form(), "file", "is missing"),
        (form(FILE, FILE), "file", "only one file"),
        (form(FILE, part("other", b"", "x")), "other", "only the field 'file' may hold a file"),
        (form(FILE, PURPOSE, PURPOSE), "purpose", "given twice"),
        (form(FILE, part("purpose", b"\xff")), "purpose", "byte 0 of the field is not UTF-8"),
        (form(part("file", b"eA==", "x", b"Content-Transfer-Encoding: base64")), "file", "Content-Transfer-Encoding"),
        (form(b"\r\nno headers"), None, "every part needs the header Content-Disposition"),
        (form(b"Content-Disposition: form-data\r\n\r\n"), None, "with a name"),
        (form(b"Content-Disposition: attachment; name=file\r\n\r\n"), None, "form-data"),
        (form(b"no header\r\n\r\n"), None, "malformed or too long"),
        (form(part("file", b"", "x" * 10_000)), None, "malformed or too long"),
        (form(part("file", b"", "x", *[b"X: y"] * 20)), None, "malformed or too long"),
        (b'{"purpose": "batch"}', None, "does not begin with the boundary"),
        (b"--other\r\n" + FILE, None, "does not begin with the boundary"),
    ],
)
async def test_invalid_form_is_rejected(body: bytes, param: str | None, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as error:
        await receive_body(body)
    assert error.value.param == param


async def test_fields_are_limited_in_length_and_number() -> None:
    longest = part("purpose", b"x" * MAX_FIELD_BYTES)
    assert len((await receive_body(form(FILE, longest))).fields["purpose"]) == MAX_FIELD_BYTES
    with pytest.raises(InvalidRequest, match="over the limit of 65536 bytes") as error:
        await receive_body(form(part("purpose", b"x" * (MAX_FIELD_BYTES + 1)), FILE))
    assert error.value.param == "purpose"

    fields = [part(str(number), b"") for number in range(MAX_FIELDS)]
    assert len((await receive_body(form(*fields, FILE))).fields) == MAX_FIELDS
    with pytest.raises(InvalidRequest, match="at most 100 fields"):
        await receive_body(form(*fields, FILE, part("one more", b"")))


@pytest.mark.parametrize(
    "body",
    [
        form(FILE, *[part(str(number), b"x" * MAX_FIELD_BYTES) for number in range(17)]),
        form(FILE) + b"x" * MAX_OVERHEAD_BYTES,
        b"\r\n" * MAX_OVERHEAD_BYTES + form(FILE),
    ],
    ids=["fields", "epilogue", "preamble"],
)
async def test_all_but_the_file_is_limited_together(body: bytes) -> None:
    with pytest.raises(PayloadTooLarge, match="without its file is over the limit of 1048576 bytes"):
        await receive_body(body)


async def test_file_is_limited() -> None:
    assert (await receive_body(BODY, max_file_bytes=len(CONTENT))).content == CONTENT
    with pytest.raises(PayloadTooLarge, match=f"the file is over the limit of {len(CONTENT) - 1} bytes"):
        await receive_body(BODY, max_file_bytes=len(CONTENT) - 1, size=7)


async def test_too_large_file_is_not_read_to_its_end() -> None:
    chunks = iter([unclosed_form(FILE), *[b"x" * 60_000] * 10])
    with pytest.raises(PayloadTooLarge):
        await receive_upload(make_request(chunks), max_file_bytes=100_000)
    assert len(list(chunks)) == 8


async def test_too_large_content_length_is_rejected_before_the_body_is_read() -> None:
    request = make_request([BODY], content_length=str(10 + MAX_OVERHEAD_BYTES + 1))
    with pytest.raises(PayloadTooLarge, match="the file is over the limit of 10 bytes"):
        MultipartUpload(request, max_file_bytes=10)


async def test_stalled_upload_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.http.multipart, "BODY_SECONDS", 0.1)
    with pytest.raises(RequestTimedOut, match=r"no more body data arrived within 0\.1 s"):
        await receive_upload(make_request([BODY[:-10]], stalls=True))


async def test_upload_that_drips_in_times_out_however_fast_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.http.multipart, "RATE_WINDOW_SECONDS", 0.2)
    drip = (b"x" for _ in range(1000))
    with pytest.raises(RequestTimedOut, match="slower than 1024 bytes per second"):
        await receive_upload(make_request([unclosed_form(FILE) + b"x" * 500_000, *drip], pause=0.02))


async def test_slow_but_steady_upload_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.http.multipart, "RATE_WINDOW_SECONDS", 0.05)
    body = form(part("file", b"x" * 20_000, "x"))
    received = await receive_upload(make_request([body[:10_000], body[10_000:]], pause=0.06))
    assert len(received.content) == 20_000


async def test_bytes_of_the_file_are_yielded_before_the_rest_arrives() -> None:
    begun = unclosed_form(part("file", b"the beginning", "x"))
    upload = MultipartUpload(make_request([begun], stalls=True), max_file_bytes=10**6)
    await upload.start()
    assert await anext(aiter(upload.file())) == b"the beginning"


async def test_reading_waits_for_the_caller_and_holds_one_chunk() -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        yield unclosed_form(FILE)
        for _ in range(1000):
            sent += 1
            yield bytes(65_536)
        yield CLOSING

    upload = MultipartUpload(make_request(chunks()), max_file_bytes=10**9)
    await upload.start()
    assert sent == 0
    gc.collect()
    tracemalloc.start()
    try:
        received = 0
        async for chunk in upload.file():
            received += len(chunk)
            assert sent * 65_536 + len(CONTENT) - received <= 65_536
        assert received == 65_536_000 + len(CONTENT)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
