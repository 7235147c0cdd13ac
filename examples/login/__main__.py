"""python -m examples.login"""

import os

import uvicorn

from examples.login.app import app

uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8090")), log_level="warning")
