"""A real Prometheus scrapes the running service: every expression of alerts and dashboards returns data after a load.

Runs in `make test-monitoring`, with vLLM and Debian's prometheus.
"""

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml

from infra.local.redis_server import free_port
from infra.local.stack import Stack
from tests.monitoring.expressions import alerts, panel_expressions, selectors
from tests.stacks import PANDA, client_of, running

pytestmark = [
    pytest.mark.monitoring,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus (Debian: prometheus)"),
]
SCRAPE_SECONDS = 1


class Prometheus:
    """A Prometheus that scrapes one stack."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression now."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10).json()
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """vLLM with the bundled model, started by an autoscaler."""
    with running(engine=None, pool={"idle_seconds": 300}) as started:
        with redis.Redis.from_url(started.redis_url) as client:
            client.config_set("maxmemory", 1 << 30)
        yield started


@pytest.fixture(scope="module")
def prometheus(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder: Path = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load(Path("infra/prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"}
    config["rule_files"] = [str(Path("infra/prometheus/rules.yml").resolve())]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [stack.url.removeprefix("http://")]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def loaded(stack: Stack, prometheus: Prometheus) -> None:
    """Calls that wait, a bulk job, and an unknown route, until Prometheus has seen all of it twice."""
    with client_of(stack) as client:
        assert client.post("/v1/rerank", json=PANDA, timeout=120).status_code == 200
        for _ in range(10):
            for number in range(20):
                document = f"{PANDA['documents'][2]} {number} {time.monotonic()}"
                assert client.post("/v1/rerank", json=PANDA | {"documents": [document]}).status_code == 200
            client.post("/v1/rerank", json={"documents": []})
            client.get("/nothing")
            time.sleep(SCRAPE_SECONDS)
        job = client.post("/v1/jobs", json={"requests": [PANDA, PANDA]}).json()
        assert client.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=60"}).status_code == 200
    asyncio.run(asyncio.sleep(2 * SCRAPE_SECONDS + 3))


@pytest.mark.usefixtures("loaded")
def test_every_panel_has_data_after_a_load(prometheus: Prometheus) -> None:
    empty = [expression for expression in panel_expressions("30s") if not prometheus.query(expression)]
    assert empty == []


@pytest.mark.usefixtures("loaded")
def test_every_alert_selects_series_and_none_fires(prometheus: Prometheus) -> None:
    empty = [each for alert in alerts() for each in selectors(alert["expr"]) if not prometheus.query(each)]
    assert empty == []
    assert prometheus.query('ALERTS{alertstate="firing"}') == []
