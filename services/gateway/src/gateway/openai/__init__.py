"""The OpenAI-compatible front: its requests become jobs, and jobs' events its answers."""
