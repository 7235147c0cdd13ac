"""Jobs on NATS: their records, their queue, and how they end."""
