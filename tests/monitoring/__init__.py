"""What an on-call person stands on: alert rules, runbook and dashboard, tried on a real Prometheus."""
