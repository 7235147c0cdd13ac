"""The streams and buckets on NATS: what they are, who leads them, and which life they are in."""
