"""Vectors become codes: assignment, k-means, residual quantization, its losses and its health."""
