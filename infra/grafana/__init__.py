"""Grafana's dashboards: `python -m infra.grafana` writes them. Owns what they show; Grafana draws it."""
