"""What real clients send beside clean requests: each is answered as it was meant, or with one clear error in JSON."""

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
SENT = json.dumps(BODY).encode()
BARE = zlib.compressobj(wbits=-zlib.MAX_WBITS)


def assert_ranked(answer: httpx.Response) -> None:
    assert answer.status_code == 200, answer.text
    assert [row["index"] for row in answer.json()["results"]] == [1, 0]


def assert_refused(answer: httpx.Response, param: str | None, message: str, status: int = 400) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert (answer.json()["error"]["param"], message in answer.json()["message"]) == (param, True), answer.text


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
def test_slashes_queries_and_versions_do_not_matter(client: httpx.Client, path: str) -> None:
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
def test_headers_do_not_matter(client: httpx.Client, headers: dict[str, str]) -> None:
    assert_ranked(client.post("/v1/rerank", content=SENT, headers=headers))


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(SENT)),
        ("GZIP", gzip.compress(SENT)),
        ("deflate", zlib.compress(SENT)),
        ("deflate", BARE.compress(SENT) + BARE.flush()),
        ("identity", SENT),
    ],
)
def test_a_body_may_be_packed(client: httpx.Client, encoding: str, packed: bytes) -> None:
    assert_ranked(client.post("/v1/rerank", content=packed, headers={"Content-Encoding": encoding}))


@pytest.mark.parametrize(
    ("encoding", "packed", "message"),
    [
        ("br", SENT, "must be one of gzip, deflate"),
        ("gzip", SENT, "the body is not valid gzip data"),
        ("gzip", gzip.compress(SENT)[:-4], "or it is incomplete"),
        ("deflate", b"", "the body is not valid deflate data"),
    ],
)
def test_what_cannot_be_unpacked_is_named(client: httpx.Client, encoding: str, packed: bytes, message: str) -> None:
    answer = client.post("/v1/rerank", content=packed, headers={"Content-Encoding": encoding})
    assert_refused(answer, "Content-Encoding", message)


def test_a_small_body_does_not_become_a_large_one(client: httpx.Client) -> None:
    packed = gzip.compress(b" " * (33 * 1024 * 1024))
    answer = client.post("/v1/rerank", content=packed, headers={"Content-Encoding": "gzip"})
    assert_refused(answer, None, "over the limit", 413)


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"\xef\xbb\xbf" + SENT, "it is a bear"),
        # A letter that JavaScript's slice() has cut in two, and ones that look like it.
        (SENT.replace(b"a bear", rb"a bear \ud83d"), "it is a bear \ufffd"),
        (SENT.replace(b"a bear", rb"a bear \udc3c\ud83d\udc3c"), "it is a bear \ufffd\U0001f43c"),
        (SENT.replace(b"a bear", rb"a bear \\ud83d \ud83d\n"), "it is a bear \\ud83d \ufffd\n"),
    ],
)
def test_a_body_that_a_strict_reader_refuses(client: httpx.Client, sent: bytes, text: str) -> None:
    answer = client.post("/v1/rerank", content=sent)
    assert_ranked(answer)
    assert answer.json()["results"][0]["document"] == {"text": text}


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"", "the body is not valid JSON: it is empty"),
        (b" \r\n", "the body is not valid JSON: it is empty"),
        (SENT.decode().encode("utf-16"), "the body is not valid JSON: byte 0 is not UTF-8"),
        ('{"query": "é"}'.encode("latin-1"), "the body is not valid JSON: byte 11 is not UTF-8"),
        (json.dumps(SENT.decode()).encode(), "the body must be a JSON object"),
    ],
)
def test_what_cannot_be_read_is_said(client: httpx.Client, sent: bytes, message: str) -> None:
    assert_refused(client.post("/v1/rerank", content=sent), None, message)


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
def test_values_are_taken_as_they_are_meant(client: httpx.Client, more: dict[str, Any]) -> None:
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
def test_an_error_names_the_field(client: httpx.Client, more: dict[str, Any], param: str, status: int) -> None:
    assert_refused(client.post("/v1/rerank", json=BODY | more), param, param.partition("[")[0].rstrip("s"), status)


def test_documents_that_are_few_equal_or_empty(client: httpx.Client) -> None:
    def ranked(*documents: str) -> list[tuple[int, bool]]:
        rows = client.post("/v1/rerank", json=BODY | {"documents": documents}).json()["results"]
        return [(row["index"], "error" in row) for row in rows]

    assert ranked("a panda") == [(0, False)]
    assert ranked("a panda", "hi", "a panda") == [(0, False), (2, False), (1, False)]
    assert ranked("", "a panda", " \n") == [(1, False), (0, True), (2, True)]
    assert ranked("panda " * 200_000) == [(0, False)]


def test_a_head_is_a_get_without_its_body(client: httpx.Client) -> None:
    for path in ("/health", "/v1/models", "/tei/health/"):
        got, asked = client.get(path), client.head(path)
        assert (asked.status_code, asked.content) == (200, b"")
        assert asked.headers["content-length"] == got.headers["content-length"]
    assert client.head("/v1/rerank").status_code == 405


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(SENT)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
IN_CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SENT), SENT)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([b"HTTP/1.1\r\nHost: a\r\n" + H2C + LENGTH + b"\r\n" + SENT], id="Java, in one piece"),
        pytest.param([b"HTTP/1.1\r\nHost: a\r\n" + H2C + LENGTH + b"\r\n", SENT], id="Java, head and body"),
        pytest.param([b"HTTP/1.1\r\nHost: a\r\n", H2C + LENGTH, b"\r\n", SENT[:9], SENT[9:]], id="Java, in crumbs"),
        pytest.param([b"HTTP/1.1\r\nHost: a\r\n" + H2C + CHUNKED + b"\r\n", IN_CHUNKS], id="Java, in chunks"),
        pytest.param([b"HTTP/1.1\r\nHost: a\r\n" + CHUNKED + b"\r\n" + IN_CHUNKS], id="in chunks"),
        pytest.param([b"HTTP/1.0\r\n" + LENGTH + b"\r\n" + SENT], id="HTTP/1.0"),
    ],
)
def test_a_request_as_it_comes_on_the_wire(stack: Stack, parts: list[bytes]) -> None:
    with connected(stack) as line:
        line.sendall(b"POST /v1/rerank ")
        for part in parts:
            line.sendall(part)
        status, body = answer_on(line)
        assert (status, body["results"][0]["index"]) == (200, 1)
        if b"HTTP/1.0" not in parts[0]:
            # The connection goes on.
            line.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert answer_on(line) == (200, {"status": "ok"})


def test_many_offers_at_once_are_declined_one_by_one(stack: Stack) -> None:
    asked = b"GET /health HTTP/1.1\r\nHost: a\r\n" + H2C + b"\r\n"
    with connected(stack) as line:
        line.sendall(asked * 1500)
        for _ in range(1500):
            assert answer_on(line) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"hello\r\n\r\n", "the request is not valid HTTP"),
        (b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "the request is not valid HTTP"),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT is not allowed here"),
    ],
)
def test_what_is_no_request_is_answered_in_json(stack: Stack, sent: bytes, message: str) -> None:
    with connected(stack) as line:
        line.sendall(sent)
        status, body = answer_on(line)
        assert (status, body["message"]) == (400, message)
        assert line.recv(1) == b""


def connected(stack: Stack) -> socket.socket:
    address = urlsplit(stack.url)
    line = socket.create_connection((address.hostname, address.port), timeout=30)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def answer_on(line: socket.socket) -> tuple[int, Any]:
    """The next answer's status and body."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += line.recv(1)
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    body = b""
    while len(body) < length:
        body += line.recv(length - len(body))
    return int(head.split()[1]), json.loads(body)
