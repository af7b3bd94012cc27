"""What happened? The audit record, metrics, and a log that holds no secret."""
