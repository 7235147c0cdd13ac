"""Where answers come from: one Protocol, one module for each backend."""
