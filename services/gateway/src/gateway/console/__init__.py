"""The console page and how it is served."""
