"""Jobs for the AI workers, as use cases that know no HTTP."""
