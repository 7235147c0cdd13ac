"""What Tidegate's processes must agree on: the contract, the bus, telemetry and how a process lives."""
