"""One connection to NATS: from its first byte to a message in a callback."""
