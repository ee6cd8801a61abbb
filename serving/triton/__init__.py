"""The gRPC door: Triton's Python backend model and its repository."""
