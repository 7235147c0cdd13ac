"""What all test processes have in common."""

import os

# Tests talk to this machine alone. Without this, httpx would read all of its authorities' certificates for each client.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull
