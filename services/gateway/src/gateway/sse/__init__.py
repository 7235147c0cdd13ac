"""The HTTP side: requests, streams and their sockets."""
