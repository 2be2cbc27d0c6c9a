"""Keys, from the command line to the door."""

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
def guarded() -> Iterator[Stack]:
    with running() as stack:
        yield stack


def api(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"REDIS_URL": stack.redis_url}
    command = [sys.executable, "-m", "api", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def test_a_made_key_is_required_everywhere_but_for_health_until_it_is_revoked(guarded: Stack) -> None:
    with client_of(guarded) as client:
        assert client.post("/v1/rerank", json=PANDA).status_code == 200
        made = api(guarded, "keys", "create", "search box")
        key = made.stdout.strip()
        bearer = {"Authorization": f"bearer {key}"}
        wait_for_status(client, 401)

        refused = client.post("/v1/rerank", content=b"not even json")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert "API key is required" in refused.json()["message"]
        for path in ("/v1/models", "/v1/jobs/x"):
            assert client.get(path).status_code == 401
        assert client.get("/health").status_code == client.get("/ready").status_code == 200

        job = client.post("/v1/rerank", json=PANDA, headers=bearer).json()["id"]
        assert client.get(f"/v1/jobs/{job}", headers=bearer).status_code == 200
        other = {"Authorization": f"Bearer {api(guarded, 'keys', 'create', 'other').stdout.strip()}"}
        wait_for_status(client, 200, other)
        assert client.get(f"/v1/jobs/{job}", headers=other).status_code == 404

        assert "search box" in api(guarded, "keys", "list").stdout
        assert key not in api(guarded, "keys", "list").stdout
        for name in ("search box", "other"):
            assert api(guarded, "keys", "revoke", name).returncode == 0
        wait_for_status(client, 200)


def test_without_a_key_only_loopback_is_served(guarded: Stack) -> None:
    refused = api(guarded, "serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert refused.stderr.startswith("api: will not listen on 0.0.0.0: no API key is configured")
    assert len(refused.stderr.splitlines()) == 1


def wait_for_status(client: httpx.Client, status: int, headers: dict[str, str] | None = None) -> None:
    """Until the API's short memory of the keys has caught up."""
    deadline = time.monotonic() + 5
    while client.get("/v1/models", headers=headers).status_code != status:
        assert time.monotonic() < deadline
        time.sleep(0.1)
