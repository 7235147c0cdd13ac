"""What Tidegate costs, beside the physical limit and its peers, on one machine in one run (`make bench`)."""
