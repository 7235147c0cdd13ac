"""Events in and out of the event stream."""
