"""What a run reports about itself to monitoring systems: Prometheus metrics and JSON log lines. Imports no Ray."""
