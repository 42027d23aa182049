"""The Grafana dashboards as code; `python -m pipelines.monitoring.dashboards` writes their files and their page."""
