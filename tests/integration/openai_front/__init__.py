"""The OpenAI-compatible front over real sockets, asked by the official clients."""
