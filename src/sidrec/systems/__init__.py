"""One folder a paper; none imports another."""
