"""Server mode survives interruptions of the client and of the service."""

import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from infra.local.stack import Stack
from tests.client.batches.files import rows, write_batch
from tests.client.command import run, running_command

SERVER = ("--mode", "server")


def batches_of(stack: Stack) -> list[str]:
    return [batch["id"] for batch in httpx.get(f"{stack.url}/v1/batches").json()["data"]]


def created_batch(process: "subprocess.Popen[str]") -> str:
    """Wait until the command has created its batch, and return the id."""
    assert process.stderr is not None
    return process.stderr.readline().split()[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_same_command_continues_the_batch_after_an_interruption(
    slow_service: Stack, tmp_path: Path, number: signal.Signals
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_batch(source, 3, number.name)
    before = len(batches_of(slow_service))
    with running_command(slow_service, "batch", str(source), str(target), *SERVER) as process:
        batch_id = created_batch(process)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=10)
    if number is not signal.SIGKILL:
        assert (process.returncode, stderr.splitlines()[-3:]) == (
            130,
            [
                f"the batch {batch_id} continues on the service",
                f"to follow it, run the same command; to stop it: python -m client batch cancel {batch_id}",
                "client: interrupted",
            ],
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl.batch"]

    result = run(slow_service, "batch", str(source), str(target))
    assert (result.returncode, result.stderr) == (
        0,
        f"continuing with the batch {batch_id}\n3 of 3 ranked, 0 failed: {target}\n",
    )
    assert [row["line"] for row in rows(target)] == [1, 2, 3]
    assert len(batches_of(slow_service)) == before + 1


def test_rest_of_a_canceled_batch_is_ranked_by_the_next_run(slow_service: Stack, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_batch(source, 4, "canceled")
    with running_command(slow_service, "batch", str(source), str(target), *SERVER) as process:
        batch_id = created_batch(process)
        assert "cancel" in run(slow_service, "batch", "cancel", batch_id).stdout
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"the batch {batch_id} was cancelled; the same command ranks what is left" in stderr
    codes = {row["error"]["type"] for row in rows(target) if "error" in row}
    assert codes == {"batch_cancelled"}

    result = run(slow_service, "batch", str(source), str(target), *SERVER)
    assert (result.returncode, all("ranking" in row for row in rows(target))) == (0, True), result.stderr


def test_following_continues_after_a_restart_of_the_api(slow_service: Stack, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_batch(source, 4, "restart")
    with running_command(slow_service, "batch", str(source), str(target), *SERVER) as process:
        created_batch(process)
        slow_service.child("api").kill()
        deadline = time.monotonic() + 20
        while httpx_status(slow_service) != 200:
            slow_service.restart_ended()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr.splitlines()[-1]) == (0, f"4 of 4 ranked, 0 failed: {target}")
    assert [row["line"] for row in rows(target)] == [1, 2, 3, 4]


def httpx_status(stack: Stack) -> int:
    try:
        return httpx.get(f"{stack.url}/ready").status_code
    except httpx.HTTPError:
        return 0
