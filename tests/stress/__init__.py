"""`python -m tests.stress`: resume and delivery proven over real processes, under faults that a seed decides."""
