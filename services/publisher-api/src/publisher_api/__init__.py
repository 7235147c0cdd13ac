"""Tidegate's publisher API: from HTTP to NATS subjects."""
