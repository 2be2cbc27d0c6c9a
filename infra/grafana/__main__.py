"""`python -m infra.grafana` writes infra/grafana/dashboards/ from the definitions in this package."""

import json
import sys
from pathlib import Path

from infra.grafana.dashboards import DASHBOARDS
from infra.grafana.panels import dashboard_json

FOLDER = Path("infra/grafana/dashboards")


def written(name: str) -> str:
    """The text of one file."""
    return json.dumps(dashboard_json(DASHBOARDS[name]), indent=2) + "\n"


def main() -> int:
    for name in DASHBOARDS:
        (FOLDER / name).write_text(written(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
