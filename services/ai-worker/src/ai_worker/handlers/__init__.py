"""What runs a job, by kind: a handler is an async generator of pieces, the last of them `Finish`."""
