"""Helpers for a running Ray that screening and training share: session, workers, logs, metrics."""
