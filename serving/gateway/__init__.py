"""The HTTP door: a BentoML service that calls the same Triton model."""
