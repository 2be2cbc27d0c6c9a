"""`python -m client batch` in server mode has the service rank a file, and writes what client mode would write."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.local.stack import Stack
from tests.client.batches.files import rows, write_batch
from tests.client.command import run

SERVER = ("--mode", "server")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "in.jsonl"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def comparable(path: Path) -> list[tuple[Any, ...]]:
    """The rows without what differs between two jobs."""
    return [
        (row["line"], row["custom_id"], row["key"], row.get("error"), row.get("ranking", {}).get("results"))
        for row in rows(path)
    ]


def stored_files(stack: Stack) -> list[str]:
    return [file["filename"] for file in httpx.get(f"{stack.url}/v1/files").json()["data"]]


def folder_names(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def test_rows_are_those_of_client_mode_in_the_order_of_the_input(service: Stack, source: Path, target: Path) -> None:
    write_batch(source, 50)
    result = run(service, "batch", str(source), str(target), *SERVER, "--top-n", "1")
    assert result.returncode == 0, result.stderr
    assert result.stderr.endswith(f"has 50 requests\n50 of 50 ranked, 0 failed: {target}\n")
    assert [json.loads(text)["line"] for text in target.read_text().splitlines()] == list(range(1, 51))

    other = target.with_name("client.jsonl")
    run(service, "batch", str(source), str(other), "--mode", "client", "--top-n", "1")
    assert comparable(target) == comparable(other)
    assert folder_names(target) == ["client.jsonl", "in.jsonl", "out.jsonl"]
    assert stored_files(service) == []


def test_invalid_lines_and_rejected_requests_are_error_rows(service: Stack, source: Path, target: Path) -> None:
    good = {"custom_id": "a", "query": "panda", "documents": ["a panda"]}
    openai = {"custom_id": "b", "method": "POST", "url": "/v1/rerank", "body": {k: good[k] for k in list(good)[1:]}}
    lines = [
        json.dumps(good),
        json.dumps(openai),
        "no json",
        json.dumps(good | {"custom_id": 7}),
        json.dumps(good | {"custom_id": "c", "model": "nope"}),
        '{"query": "q"}',
    ]
    source.write_text("\ufeff" + "\r\n\r\n".join(lines))
    result = run(service, "batch", str(source), str(target), *SERVER)
    assert (result.returncode, result.stderr.splitlines()[-1]) == (1, f"3 of 6 ranked, 3 failed: {target}")

    other = target.with_name("client.jsonl")
    run(service, "batch", str(source), str(other), "--mode", "client")
    assert comparable(target) == comparable(other)
    failed = [(row["line"], row["error"]["type"]) for row in rows(target) if "error" in row]
    assert failed == [(5, "invalid_request"), (9, "model_not_found"), (11, "invalid_request")]


def test_only_lines_without_a_ranking_are_sent_again_in_either_mode(service: Stack, source: Path, target: Path) -> None:
    write_batch(source, 6)
    good = source.read_text().splitlines()
    source.write_text("\n".join([*good[:3], good[3][:-1] + ', "model": "nope"}', "no json", good[5]]))
    assert run(service, "batch", str(source), str(target), "--mode", "client").returncode == 1
    before = rows(target)

    source.write_text("\n".join([*good[:4], "no json", good[5]]))
    result = run(service, "batch", str(source), str(target), *SERVER)
    assert "4 of 6 were ranked by an earlier run" in result.stderr
    assert "has 1 requests" in result.stderr
    after = rows(target)
    assert [after[number] for number in (0, 1, 2, 5)] == [before[number] for number in (0, 1, 2, 5)]
    assert ["ranking" in row for row in after] == [True, True, True, True, False, True]

    source.write_text("\n".join(good))
    result = run(service, "batch", str(source), str(target), "--mode", "client")
    assert result.stderr == f"5 of 6 were ranked by an earlier run\n6 of 6 ranked, 0 failed: {target}\n"
    result = run(service, "batch", str(source), str(target), *SERVER)
    assert result.stderr == f"6 of 6 were ranked by an earlier run\n6 of 6 ranked, 0 failed: {target}\n"


def test_repeated_custom_id_is_reported_with_its_line(service: Stack, source: Path, target: Path) -> None:
    write_batch(source, 3)
    source.write_text("\n\n" + source.read_text().replace("c2", "c0"))
    result = run(service, "batch", str(source), str(target), *SERVER)
    assert result.returncode == 1
    assert "line 5: the custom_id of line 5 is that of an earlier line" in result.stderr
    assert result.stderr.splitlines()[-1].endswith(" failed")
    # The next run begins anew.
    assert (folder_names(target), stored_files(service)) == (["in.jsonl"], [])
    write_batch(source, 3)
    assert run(service, "batch", str(source), str(target), *SERVER).returncode == 0


def test_rejected_options_leave_nothing_behind(service: Stack, source: Path, target: Path) -> None:
    write_batch(source, 3)
    result = run(service, "batch", str(source), str(target), *SERVER, "--model", "nope")
    assert (result.returncode, result.stderr) == (
        1,
        "client: model 'nope' is not served here; served: all-MiniLM-L6-v2\n",
    )
    assert (folder_names(target), stored_files(service)) == (["in.jsonl"], [])
    result = run(service, "batch", str(source), str(target), "--completion-window", "soon")
    assert "completion_window: must be a time" in result.stderr


def test_files_stay_on_the_service_on_request(service: Stack, source: Path, target: Path) -> None:
    write_batch(source, 2)
    source.write_text(source.read_text() + '{"query": "a", "documents": ["b"], "model": "nope"}\n')
    run(service, "batch", str(source), str(target), "--keep-files")
    names = stored_files(service)
    assert [name.rpartition("_")[2] for name in sorted(names)] == ["errors.jsonl", "output.jsonl", "in.jsonl"]
    for file in httpx.get(f"{service.url}/v1/files").json()["data"]:
        httpx.delete(f"{service.url}/v1/files/{file['id']}")


def test_detached_batch_is_followed_and_downloaded_later(service: Stack, source: Path, target: Path) -> None:
    write_batch(source, 20)
    detached = run(service, "batch", str(source), str(target), "--detach", "--metadata", "team=search")
    batch_id = detached.stdout.strip()
    assert (detached.returncode, folder_names(target)) == (0, ["in.jsonl", "out.jsonl.batch"])
    assert run(service, "batch", str(source), str(target), "--detach").stdout.strip() == batch_id

    shown = json.loads(run(service, "batch", "status", batch_id, "--json").stdout)
    assert (shown["id"], shown["metadata"]) == (batch_id, {"team": "search"})
    assert "search" in run(service, "batch", "status", batch_id).stdout
    assert batch_id in run(service, "batch", "list", "--limit", "1").stdout

    elsewhere = target.with_name("elsewhere.jsonl")
    resumed = run(service, "batch", "resume", batch_id, str(elsewhere), "--keep-files")
    assert resumed.stderr == f"20 of 20 ranked, 0 failed: {elsewhere}\n"
    resumed = run(service, "batch", "resume", batch_id, str(target))
    assert resumed.stderr == f"20 of 20 ranked, 0 failed: {target}\n"
    assert target.read_text() == elsewhere.read_text()
    assert (folder_names(target), stored_files(service)) == (["elsewhere.jsonl", "in.jsonl", "out.jsonl"], [])


def test_state_of_another_command_is_not_continued(service: Stack, source: Path, target: Path) -> None:
    write_batch(source, 2)
    batch_id = run(service, "batch", str(source), str(target), "--detach").stdout.strip()
    for arguments, message in (
        (["--mode", "client"], "continues a batch in server mode"),
        (["--top-n", "1"], "with other request options"),
        (["--url", service.url.replace("127.0.0.1", "localhost")], f"add --url {service.url}"),
    ):
        result = run(service, "batch", str(source), str(target), *arguments)
        assert (result.returncode, message in result.stderr) == (2, True), result.stderr
    result = run(service, "batch", "resume", "batch_1", str(target))
    assert (result.returncode, "belongs to another batch" in result.stderr) == (2, True)
    result = run(service, "batch", "resume", batch_id, str(source))
    assert (result.returncode, "exists; name another file" in result.stderr) == (2, True)

    before = source.read_text()
    write_batch(source, 3)
    result = run(service, "batch", str(source), str(target))
    assert (result.returncode, "continues a batch of another input" in result.stderr) == (2, True)
    source.write_text(before)
    assert run(service, "batch", str(source), str(target)).returncode == 0


def test_existing_file_that_is_not_a_batch_output_is_unchanged(service: Stack, source: Path, target: Path) -> None:
    write_batch(source, 1)
    target.write_text("text\n")
    result = run(service, "batch", str(source), str(target), *SERVER)
    assert (result.returncode, target.read_text()) == (2, "text\n")
    assert (folder_names(target), stored_files(service)) == (["in.jsonl", "out.jsonl"], [])
