"""Events: checked, sent alone or in batches, and counted if a receipt is wanted."""
