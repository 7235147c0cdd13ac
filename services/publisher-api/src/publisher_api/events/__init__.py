"""Events: checked, sent alone or in batches, and counted where a receipt is wanted."""
