"""A study's finished cells as one table."""
