"""API keys, created on the command line and required over HTTP."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from infra.local.stack import ROOT, Stack
from tests.stacks import PANDA, client_of, running


@pytest.fixture(scope="module")
def key_stack() -> Iterator[Stack]:
    with running() as stack:
        yield stack


def run_api_command(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"REDIS_URL": stack.redis_url}
    command = [sys.executable, "-m", "api", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def test_key_is_required_except_for_health_until_it_is_revoked(key_stack: Stack) -> None:
    with client_of(key_stack) as client:
        assert client.post("/v1/rerank", json=PANDA).status_code == 200
        created = run_api_command(key_stack, "keys", "create", "search box")
        key = created.stdout.strip()
        bearer = {"Authorization": f"bearer {key}"}
        wait_for_status(client, 401)

        rejected = client.post("/v1/rerank", content=b"not even json")
        assert rejected.status_code == 401
        assert rejected.headers["www-authenticate"] == "Bearer"
        assert "API key is required" in rejected.json()["message"]
        for path in ("/v1/models", "/v1/jobs", "/v1/jobs/x"):
            assert client.get(path).status_code == 401
        assert client.get("/health").status_code == client.get("/ready").status_code == 200

        job = client.post("/v1/rerank", json=PANDA, headers=bearer).json()["id"]
        assert client.get(f"/v1/jobs/{job}", headers=bearer).status_code == 200
        other = {"Authorization": f"Bearer {run_api_command(key_stack, 'keys', 'create', 'other').stdout.strip()}"}
        wait_for_status(client, 200, other)
        assert client.get(f"/v1/jobs/{job}", headers=other).status_code == 404
        assert [listed["id"] for listed in client.get("/v1/jobs", headers=bearer).json()["data"]] == [job]
        assert client.get("/v1/jobs", headers=other).json()["data"] == []

        assert "search box" in run_api_command(key_stack, "keys", "list").stdout
        assert key not in run_api_command(key_stack, "keys", "list").stdout
        for name in ("search box", "other"):
            assert run_api_command(key_stack, "keys", "revoke", name).returncode == 0
        wait_for_status(client, 200)


def test_without_a_key_the_api_listens_only_on_loopback(key_stack: Stack) -> None:
    serving = run_api_command(key_stack, "serve", "--host", "0.0.0.0", "--port", "0")
    assert serving.returncode == 2
    assert serving.stderr.startswith("api: will not listen on 0.0.0.0: no API key is configured")
    assert len(serving.stderr.splitlines()) == 1


def wait_for_status(client: httpx.Client, status: int, headers: dict[str, str] | None = None) -> None:
    """Wait until the API has read the changed keys; it caches them for a short time."""
    deadline = time.monotonic() + 5
    while client.get("/v1/models", headers=headers).status_code != status:
        assert time.monotonic() < deadline
        time.sleep(0.1)
