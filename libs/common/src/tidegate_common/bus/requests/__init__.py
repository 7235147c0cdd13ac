"""Questions over NATS, and who asks them."""
