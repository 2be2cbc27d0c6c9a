"""A real Prometheus scrapes the running service: every expression of alerts and dashboards returns data after a load.

Runs in `make test-monitoring`, with vLLM and Debian's prometheus.
"""

import shutil
import time
from collections.abc import Iterator

import pytest
import redis

from infra.local.stack import Stack
from tests.monitoring.expressions import alerts, panel_expressions, selectors
from tests.monitoring.prometheus_server import SCRAPE_SECONDS, Prometheus, scraping
from tests.stacks import PANDA, client_of, running

pytestmark = [
    pytest.mark.monitoring,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus (Debian: prometheus)"),
]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """vLLM with the bundled model, started by an autoscaler."""
    with running(engine=None, pool={"idle_seconds": 300}) as started:
        with redis.Redis.from_url(started.redis_url) as client:
            client.config_set("maxmemory", 1 << 30)
        yield started


@pytest.fixture(scope="module")
def prometheus(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with scraping(stack, tmp_path_factory.mktemp("prometheus")) as started:
        yield started


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
    # The worker's next heartbeat, and two scrapes.
    time.sleep(2 * SCRAPE_SECONDS + 3)


@pytest.mark.usefixtures("loaded")
def test_every_panel_has_data_after_a_load(prometheus: Prometheus) -> None:
    empty = [expression for expression in panel_expressions("30s") if not prometheus.query(expression)]
    assert empty == []


@pytest.mark.usefixtures("loaded")
def test_every_alert_selects_series_and_none_fires(prometheus: Prometheus) -> None:
    empty = [each for alert in alerts() for each in selectors(alert["expr"]) if not prometheus.query(each)]
    assert empty == []
    assert prometheus.firing() == set()
