"""Attention and blocks that every recommender here is built from."""
