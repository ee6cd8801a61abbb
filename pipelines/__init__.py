"""Pipelines over the components; the same object runs locally and compiles for a cluster."""
