"""What `make check` holds against each other: the code and its documentation."""
