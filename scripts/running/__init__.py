"""The parts of `scripts/run.py`: what to run, its processes, their readiness, what is shown."""
