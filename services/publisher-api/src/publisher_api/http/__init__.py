"""The HTTP side: thin endpoints over the use cases."""
