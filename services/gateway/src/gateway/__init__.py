"""Tidegate's gateway: the only way out, from NATS subjects to SSE sockets."""
