"""Histories and item attributes into the feature store; the point-in-time training set out of it."""
