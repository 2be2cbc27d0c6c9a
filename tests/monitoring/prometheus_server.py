"""Runs Debian's Prometheus against a stack, with the configuration of infra/prometheus."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from infra.local.redis_server import free_port
from infra.local.stack import Stack

SCRAPE_SECONDS = 1


class Prometheus:
    """A Prometheus that scrapes one stack."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression now."""
        return self._get("query", {"query": expression})

    def query_range(self, expression: str, seconds: float) -> list[dict[str, Any]]:
        """The series of an expression over the last `seconds`."""
        now = time.time()
        return self._get("query_range", {"query": expression, "start": now - seconds, "end": now, "step": "1"})

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {each["metric"]["alertname"] for each in self.query('ALERTS{alertstate="firing"}')}

    def _get(self, path: str, parameters: dict[str, str | float]) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10).json()
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


@contextmanager
def scraping(stack: Stack, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the stack each second; its data is in the folder."""
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
