"""Panels of Grafana's dashboards, and the JSON that Grafana imports (schema version 39, Grafana 10 and later)."""

from dataclasses import dataclass
from typing import Any

_DATASOURCE = {"type": "prometheus", "uid": "rerankq"}
_WIDTH = 24


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and what its series are called: `{{label}}` is replaced."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture: lines over time, or the latest value as a number. `unit` is one of Grafana's."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    number: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Rows of panels. `by_model`: the dashboard has a selection of models, `$model`."""

    uid: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    by_model: bool = False

    @property
    def panels(self) -> list[Panel]:
        return [panel for _, panels in self.rows for panel in panels]


def dashboard_json(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["rerankq"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [_MODELS] if dashboard.by_model else []},
        "panels": _placed(dashboard),
    }


_MODELS = {
    "name": "model",
    "label": "Model",
    "type": "query",
    "datasource": _DATASOURCE,
    "query": {"query": "label_values(rerankq_pool_desired_workers, model)", "refId": "models"},
    "refresh": 2,
    "includeAll": True,
    "multi": True,
    "current": {"text": "All", "value": "$__all"},
}


def _placed(dashboard: Dashboard) -> list[dict[str, Any]]:
    """The panels with their places: the panels of a row share its width."""
    placed: list[dict[str, Any]] = []
    top = 0
    for title, panels in dashboard.rows:
        placed.append(
            {
                "id": len(placed) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": _WIDTH, "h": 1},
                "panels": [],
            }
        )
        width = _WIDTH // len(panels)
        height = 4 if all(panel.number for panel in panels) else 8
        for position, panel in enumerate(panels):
            place = {"x": position * width, "y": top + 1, "w": width, "h": height}
            placed.append(_panel_json(panel, len(placed) + 1, place))
        top += 1 + height
    return placed


def _panel_json(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    drawing = {} if panel.number else {"custom": {"fillOpacity": 10, "showPoints": "never", "spanNulls": 60_000}}
    return {
        "id": number,
        "type": "stat" if panel.number else "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, **drawing}, "overrides": []},
        "options": {} if panel.number else {"tooltip": {"mode": "multi"}, "legend": {"displayMode": "list"}},
        "targets": [
            {
                "refId": chr(ord("A") + position),
                "datasource": _DATASOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
                "instant": panel.number,
                "range": not panel.number,
            }
            for position, query in enumerate(panel.queries)
        ],
    }
