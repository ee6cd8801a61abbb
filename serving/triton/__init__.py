"""The gRPC door: Triton's Python backend model and its repository."""

from pathlib import Path


def model_source() -> Path:
    """Return the file that every version carries as its `model.py`."""
    return Path(__file__).parent / "model.py"
