"""What screening and training share of a running Ray: session, workers, logs, metrics."""
