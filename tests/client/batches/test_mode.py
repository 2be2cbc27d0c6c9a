"""Which mode `python -m client batch` selects."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from client.batches.input_lines import LARGE_BYTES, LARGE_LINES, InputFile
from infra.local.stack import Stack
from tests.client.batches.files import rows, write_batch
from tests.client.command import run


class OldService(BaseHTTPRequestHandler):
    """Has no routes at all."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        """Do not log requests."""


@pytest.fixture
def old_service() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), OldService) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join(5)


def test_inputs_of_many_lines_or_bytes_are_large(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    for text, large in (
        ("x\n" * LARGE_LINES + "\n" * 5000, False),
        ("x\n" * LARGE_LINES + "x", True),
        ("x" * LARGE_BYTES, False),
        ("x" * LARGE_BYTES + "\n", True),
    ):
        source.write_text(text)
        assert InputFile(source, {}).is_large() is large


def test_large_inputs_are_ranked_by_the_service(service: Stack, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_batch(source, LARGE_LINES + 1)
    result = run(service, "batch", str(source), str(target))
    assert (result.returncode, "has 1001 requests" in result.stderr) == (0, True), result.stderr
    assert [row["line"] for row in rows(target)] == list(range(1, LARGE_LINES + 2))


def test_client_mode_is_used_for_a_service_without_batches(service: Stack, old_service: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_batch(source, LARGE_LINES + 1)
    result = run(service, "batch", str(source), str(target), "--url", old_service)
    assert result.stderr == f"0 of 1001 ranked, 1001 failed: {target}\n"
    target.unlink()
    for option in (["--mode", "server"], ["--detach"]):
        result = run(service, "batch", str(source), str(target), "--url", old_service, *option)
        assert (result.returncode, result.stderr) == (1, "client: this service has no batches; use --mode client\n")


@pytest.mark.parametrize("option", [["--detach"], ["--metadata", "a=b"], ["--completion-window", "1h"]])
def test_options_of_server_mode_are_invalid_in_client_mode(service: Stack, tmp_path: Path, option: list[str]) -> None:
    source = tmp_path / "in.jsonl"
    write_batch(source, 1)
    result = run(service, "batch", str(source), str(tmp_path / "out.jsonl"), "--mode", "client", *option)
    assert (result.returncode, result.stderr) == (2, f"client: {option[0]} needs the server mode\n")


def test_unreachable_service_is_reported_at_once(service: Stack, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_batch(source, 3)
    arguments = ("--mode", "server", "--url", "http://127.0.0.1:9", "--retries", "0")
    result = run(service, "batch", str(source), str(target), *arguments)
    assert (result.returncode, "check that the service is running" in result.stderr) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_file_with_the_name_of_an_action_is_given_as_a_path(
    service: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_batch(Path("status"), 2)
    result = run(service, "batch", "./status", "list")
    assert (result.returncode, len(rows(Path("list")))) == (0, 2)
