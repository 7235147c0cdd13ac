"""How messages cross: the only place that imports a NATS client."""
