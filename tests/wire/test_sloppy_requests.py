"""Irregular requests of real clients: the service accepts them, or rejects them with one clear error in JSON."""

import gzip
import json
import socket
import zlib
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from infra.local.stack import Stack

BODY: dict[str, Any] = {"query": "What is a panda?", "documents": ["hi", "it is a bear"]}
ENCODED_BODY = json.dumps(BODY).encode()
RAW_DEFLATE = zlib.compressobj(wbits=-zlib.MAX_WBITS)


def assert_ranked(response: httpx.Response) -> None:
    assert response.status_code == 200, response.text
    assert [row["index"] for row in response.json()["results"]] == [1, 0]


def assert_rejected(response: httpx.Response, param: str | None, message: str, status: int = 400) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert (response.json()["error"]["param"], message in response.json()["message"]) == (param, True), response.text


@pytest.mark.parametrize(
    "path",
    [
        "/v1/rerank/",
        "//v1/rerank",
        "/v1//rerank",
        "/v1/rerank?api-version=1",
        "//jina//v1/rerank//",
        "/cohere/v2/rerank/",
        "/v1/v1/rerank",
        "/v1/v2/rerank",
        "/v2//v2/v2/rerank/",
        "/cohere/v2/v1/rerank",
        "/reranking",
        "/v1/reranks",
        "/v1/models/rerank",
        *("/jina/rerank", "/cohere/rerank", "/gpustack/rerank", "/jina/v1/v1/rerank"),
    ],
)
def test_extra_slashes_query_strings_and_versions_in_the_path_are_ignored(client: httpx.Client, path: str) -> None:
    assert_ranked(client.post(path, json=BODY))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Accept": "text/event-stream"},
        {"Accept-Encoding": "gzip, br"},
        {"Expect": "100-continue"},
        {"Connection": "close"},
    ],
    ids=str,
)
def test_content_type_and_other_headers_are_ignored(client: httpx.Client, headers: dict[str, str]) -> None:
    assert_ranked(client.post("/v1/rerank", content=ENCODED_BODY, headers=headers))


@pytest.mark.parametrize(
    ("encoding", "compressed"),
    [
        ("gzip", gzip.compress(ENCODED_BODY)),
        ("GZIP", gzip.compress(ENCODED_BODY)),
        ("deflate", zlib.compress(ENCODED_BODY)),
        ("deflate", RAW_DEFLATE.compress(ENCODED_BODY) + RAW_DEFLATE.flush()),
        ("identity", ENCODED_BODY),
    ],
)
def test_compressed_body_is_accepted(client: httpx.Client, encoding: str, compressed: bytes) -> None:
    assert_ranked(client.post("/v1/rerank", content=compressed, headers={"Content-Encoding": encoding}))


@pytest.mark.parametrize(
    ("encoding", "compressed", "message"),
    [
        ("br", ENCODED_BODY, "must be one of gzip, deflate"),
        ("gzip", ENCODED_BODY, "the body is not valid gzip data"),
        ("gzip", gzip.compress(ENCODED_BODY)[:-4], "or it is incomplete"),
        ("deflate", b"", "the body is not valid deflate data"),
    ],
)
def test_invalid_compressed_body_is_rejected(
    client: httpx.Client, encoding: str, compressed: bytes, message: str
) -> None:
    response = client.post("/v1/rerank", content=compressed, headers={"Content-Encoding": encoding})
    assert_rejected(response, "Content-Encoding", message)


def test_limit_applies_to_the_decompressed_body(client: httpx.Client) -> None:
    compressed = gzip.compress(b" " * (33 * 1024 * 1024))
    response = client.post("/v1/rerank", content=compressed, headers={"Content-Encoding": "gzip"})
    assert_rejected(response, None, "over the limit", 413)


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"\xef\xbb\xbf" + ENCODED_BODY, "it is a bear"),
        # A surrogate pair that JavaScript's slice() has cut in two, and similar escapes.
        (ENCODED_BODY.replace(b"a bear", rb"a bear \ud83d"), "it is a bear \ufffd"),
        (ENCODED_BODY.replace(b"a bear", rb"a bear \udc3c\ud83d\udc3c"), "it is a bear \ufffd\U0001f43c"),
        (ENCODED_BODY.replace(b"a bear", rb"a bear \\ud83d \ud83d\n"), "it is a bear \\ud83d \ufffd\n"),
    ],
)
def test_byte_order_mark_and_lone_surrogates_are_accepted(client: httpx.Client, sent: bytes, text: str) -> None:
    response = client.post("/v1/rerank", content=sent)
    assert_ranked(response)
    assert response.json()["results"][0]["document"] == {"text": text}


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"", "the body is not valid JSON: it is empty"),
        (b" \r\n", "the body is not valid JSON: it is empty"),
        (ENCODED_BODY.decode().encode("utf-16"), "the body is not valid JSON: byte 0 is not UTF-8"),
        ('{"query": "é"}'.encode("latin-1"), "the body is not valid JSON: byte 11 is not UTF-8"),
        (json.dumps(ENCODED_BODY.decode()).encode(), "the body must be a JSON object"),
    ],
)
def test_unreadable_body_is_rejected_with_the_reason(client: httpx.Client, sent: bytes, message: str) -> None:
    assert_rejected(client.post("/v1/rerank", content=sent), None, message)


@pytest.mark.parametrize(
    "more",
    [
        {"top_n": 999},
        {"top_n": "2"},
        {"top_n": 2.0},
        {"top_n": None, "model": None},
        {"return_documents": "true"},
        {"return_documents": "False"},
        {"model": ""},
        {"model": "ALL-minilm-l6-V2"},
        {"model": "sentence-transformers/all-MiniLM-L6-v2"},
        {"model": "openrouter/Sentence-Transformers/All-MiniLM-L6-v2"},
        {"unheard_of": {"of": []}},
    ],
    ids=str,
)
def test_equivalent_values_are_accepted(client: httpx.Client, more: dict[str, Any]) -> None:
    assert_ranked(client.post("/v1/rerank", json=BODY | more))


@pytest.mark.parametrize(
    ("more", "param", "status"),
    [
        ({"documents": []}, "documents", 400),
        ({"documents": "hi"}, "documents", 400),
        ({"documents": {"text": "hi"}}, "documents", 400),
        ({"documents": [1]}, "documents[0]", 400),
        ({"documents": ["hi", None]}, "documents[1]", 400),
        ({"documents": [["hi"], ["it is a bear"]]}, "documents[0]", 400),
        ({"documents": ["hi", {"content": "hi"}]}, "documents[1].text", 400),
        ({"documents": [{"id": "hi"}]}, "documents[0].text", 400),
        ({"query": 5}, "query", 400),
        ({"query": "  "}, "query", 400),
        ({"top_n": 0}, "top_n", 400),
        ({"top_n": "many"}, "top_n", 400),
        ({"top_n": True}, "top_n", 400),
        ({"return_documents": "perhaps"}, "return_documents", 400),
        ({"model": 3}, "model", 400),
        ({"model": "all-MiniLM-L6-v2:latest"}, "model", 404),
    ],
    ids=str,
)
def test_error_names_the_invalid_field(client: httpx.Client, more: dict[str, Any], param: str, status: int) -> None:
    assert_rejected(client.post("/v1/rerank", json=BODY | more), param, param.partition("[")[0].rstrip("s"), status)


def test_single_equal_empty_and_long_documents_are_ranked(client: httpx.Client) -> None:
    def ranked(*documents: str) -> list[tuple[int, bool]]:
        rows = client.post("/v1/rerank", json=BODY | {"documents": documents}).json()["results"]
        return [(row["index"], "error" in row) for row in rows]

    assert ranked("a panda") == [(0, False)]
    assert ranked("a panda", "hi", "a panda") == [(0, False), (2, False), (1, False)]
    assert ranked("", "a panda", " \n") == [(1, False), (0, True), (2, True)]
    assert ranked("panda " * 200_000) == [(0, False)]


def test_head_returns_the_headers_of_get(client: httpx.Client) -> None:
    for path in ("/health", "/v1/models", "/tei/health/"):
        get, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == get.headers["content-length"]
    assert client.head("/v1/rerank").status_code == 405


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(ENCODED_BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKED_BODY = b"%x\r\n%s\r\n0\r\n\r\n" % (len(ENCODED_BODY), ENCODED_BODY)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([b"HTTP/1.1\r\nHost: a\r\n" + H2C + LENGTH + b"\r\n" + ENCODED_BODY], id="Java, in one piece"),
        pytest.param([b"HTTP/1.1\r\nHost: a\r\n" + H2C + LENGTH + b"\r\n", ENCODED_BODY], id="Java, head and body"),
        pytest.param(
            [b"HTTP/1.1\r\nHost: a\r\n", H2C + LENGTH, b"\r\n", ENCODED_BODY[:9], ENCODED_BODY[9:]],
            id="Java, in small parts",
        ),
        pytest.param([b"HTTP/1.1\r\nHost: a\r\n" + H2C + CHUNKED + b"\r\n", CHUNKED_BODY], id="Java, in chunks"),
        pytest.param([b"HTTP/1.1\r\nHost: a\r\n" + CHUNKED + b"\r\n" + CHUNKED_BODY], id="in chunks"),
        pytest.param([b"HTTP/1.0\r\n" + LENGTH + b"\r\n" + ENCODED_BODY], id="HTTP/1.0"),
    ],
)
def test_http_framing_and_upgrade_offers_of_real_clients_are_accepted(stack: Stack, parts: list[bytes]) -> None:
    with connect(stack) as connection:
        connection.sendall(b"POST /v1/rerank ")
        for part in parts:
            connection.sendall(part)
        status, body = read_response(connection)
        assert (status, body["results"][0]["index"]) == (200, 1)
        if b"HTTP/1.0" not in parts[0]:
            # The connection stays open.
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert read_response(connection) == (200, {"status": "ok"})


def test_pipelined_upgrade_offers_are_all_ignored(stack: Stack) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: a\r\n" + H2C + b"\r\n"
    with connect(stack) as connection:
        connection.sendall(request * 1500)
        for _ in range(1500):
            assert read_response(connection) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"hello\r\n\r\n", "the request is not valid HTTP"),
        (b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "the request is not valid HTTP"),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT is not allowed here"),
    ],
)
def test_malformed_http_gets_a_json_error(stack: Stack, sent: bytes, message: str) -> None:
    with connect(stack) as connection:
        connection.sendall(sent)
        status, body = read_response(connection)
        assert (status, body["message"]) == (400, message)
        assert connection.recv(1) == b""


def connect(stack: Stack) -> socket.socket:
    address = urlsplit(stack.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_response(connection: socket.socket) -> tuple[int, Any]:
    """The status and body of the next response."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return int(head.split()[1]), json.loads(body)
