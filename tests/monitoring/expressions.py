"""The PromQL expressions of alerts and dashboards, and the metrics that they select."""

import re
from pathlib import Path
from typing import Any

import yaml

from infra.grafana.dashboards import DASHBOARDS

RULES = Path("infra/prometheus/rules.yml")
_SELECTOR = re.compile(r"\b(?:rerankq|process)_[a-z_]+(?:\{[^}]*\})?|\bup\{[^}]*\}")


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def panel_expressions(rate_interval: str = "5m") -> list[str]:
    """The expressions of all panels, for all models."""
    return [
        query.expression.replace("$__rate_interval", rate_interval).replace('model=~"$model"', 'model=~".+"')
        for dashboard in DASHBOARDS.values()
        for panel in dashboard.panels
        for query in panel.queries
    ]


def selectors(expression: str) -> list[str]:
    """The series that an expression selects, such as `rerankq_pool_jobs{state="queued"}`."""
    return _SELECTOR.findall(expression)


def metric_of(selector: str) -> str:
    return selector.partition("{")[0]
