"""From NATS subjects to the hub, and back in time."""
