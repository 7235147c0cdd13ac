"""Tidegate's gateway: from NATS subjects to SSE sockets."""
