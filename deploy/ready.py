"""Container health check: exits 0 when the service on TIDEGATE_PORT says that it is ready.

A bare socket, since a check runs often and importing an HTTP client costs ten times the request.
"""

import os
import socket
import sys

with socket.create_connection(("127.0.0.1", int(os.environ["TIDEGATE_PORT"])), timeout=3) as connection:
    connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    status = connection.makefile("rb").readline()
sys.exit(status.split()[1:2] != [b"200"])
