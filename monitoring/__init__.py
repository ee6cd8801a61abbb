"""Drift, codebook health and ranking quality over the exposure log."""
