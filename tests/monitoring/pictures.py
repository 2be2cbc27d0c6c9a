"""`python -m tests.monitoring.pictures FOLDER` draws both dashboards of the running service after a load.

Prometheus is real, and the panels' own expressions are drawn; only the drawing is not Grafana's.
"""

import sys
import tempfile
import time
from pathlib import Path

import redis

from infra.grafana.dashboards import DASHBOARDS
from infra.grafana.panels import Panel
from tests.charts import Chart, Line, draw
from tests.monitoring.prometheus_server import Prometheus, scraping
from tests.stacks import PANDA, client_of, running

_SECONDS = 90.0


def chart_of(panel: Panel, prometheus: Prometheus) -> Chart:
    """A panel's series over the load."""
    lines = []
    for query in panel.queries:
        expression = query.expression.replace("$__rate_interval", "10s").replace('model=~"$model"', 'model=~".+"')
        for series in prometheus.query_range(expression, _SECONDS):
            name = query.legend
            for label, value in series["metric"].items():
                name = name.replace(f"{{{{{label}}}}}", value)
            points = [(float(at), float(value)) for at, value in series["values"] if value not in ("NaN", "+Inf")]
            lines.append(Line(name, points))
    return Chart(f"{panel.title} ({panel.unit})", lines)


def main() -> int:
    folder = Path(sys.argv[1])
    with (
        running(engine=None, pool={"idle_seconds": 300}) as stack,
        tempfile.TemporaryDirectory() as data,
        scraping(stack, Path(data)) as prometheus,
        client_of(stack) as client,
    ):
        with redis.Redis.from_url(stack.redis_url) as store:
            store.config_set("maxmemory", 1 << 30)
        client.post("/v1/rerank", json=PANDA, timeout=120)
        client.post("/v1/jobs", json={"requests": [PANDA] * 200})
        end = time.monotonic() + _SECONDS - 15
        number = 0
        while time.monotonic() < end:
            number += 1
            documents = [f"{PANDA['documents'][2]} {number} {position}" for position in range(10)]
            client.post("/v1/rerank", json=PANDA | {"documents": documents})
            if number % 20 == 0:
                client.post("/v1/rerank", json={"documents": []})
            time.sleep(0.02)
        time.sleep(4)
        for name, dashboard in DASHBOARDS.items():
            charts = [chart_of(panel, prometheus) for panel in dashboard.panels]
            draw(charts, folder / f"{name.removesuffix('.json')}.svg", columns=3)
    return 0


if __name__ == "__main__":
    sys.exit(main())
