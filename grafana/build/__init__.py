"""The two dashboards as code. `python -m grafana.build` writes their JSON, which is committed."""
