"""Tidegate's publisher API: the only way in, from HTTP to NATS subjects."""
