"""Alerts and dashboards name metrics that exist, their files are current, and each alert has its paragraph."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from api.metrics.definitions import COUNTED, READ
from infra.grafana.__main__ import FOLDER, written
from infra.grafana.dashboards import DASHBOARDS
from shared.metrics.definitions import Kind
from shared.metrics.work import POOL_PREFIX, WORK_METRICS
from tests.monitoring.expressions import RULES, alerts, metric_of, panel_expressions, selectors

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")


def exposed_names() -> set[str]:
    """What the API exposes, as it is named in queries."""
    definitions = [(each.name, each) for each in (*COUNTED, *READ)]
    definitions += [(POOL_PREFIX + each.name, each) for each in WORK_METRICS]
    names = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}
    for name, definition in definitions:
        suffixes = {Kind.COUNTER: ["_total"], Kind.GAUGE: [""], Kind.HISTOGRAM: ["_bucket", "_sum", "_count"]}
        names |= {name + suffix for suffix in suffixes[definition.kind]}
    return names


@pytest.mark.parametrize("expression", [alert["expr"] for alert in alerts()] + panel_expressions())
def test_every_expression_selects_metrics_that_exist(expression: str) -> None:
    found = selectors(expression)
    assert found
    assert {metric_of(selector) for selector in found} <= exposed_names()


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_files_of_dashboards_are_current(name: str) -> None:
    assert (FOLDER / name).read_text() == written(name), "run `python -m infra.grafana`"
    panels = json.loads(written(name))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_every_alert_links_its_paragraph(alert: dict[str, dict[str, str]]) -> None:
    file, _, anchor = alert["annotations"]["runbook"].partition("#")
    titles = re.findall(r"^#+ (.+)$", Path(file).read_text(), re.MULTILINE)
    assert anchor in [title.lower() for title in titles]
    assert anchor == str(alert["alert"]).lower()


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "rules", str(RULES)],
        ["check", "config", "infra/prometheus/prometheus.yml"],
        ["test", "rules", "infra/prometheus/rules.test.yml"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_accepts_the_configuration_and_plays_every_alert(arguments: list[str]) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_situation_in_which_it_fires() -> None:
    text = Path("infra/prometheus/rules.test.yml").read_text()
    fired = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n", text))
    assert fired == {alert["alert"] for alert in alerts()}
