"""The command `tidegate`: tokens to try with, keys for services. It needs the extra `tidegate[command]`."""
