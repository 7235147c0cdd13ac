"""How any of our processes lives: its settings, its HTTP server, its health, its errors over HTTP."""
