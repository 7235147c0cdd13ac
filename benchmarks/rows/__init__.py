"""What is measured: each module holds the rows of one question."""
