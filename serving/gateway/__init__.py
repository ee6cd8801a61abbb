"""The HTTP door: a BentoML service that asks Triton over gRPC."""
