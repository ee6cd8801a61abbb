"""sidrec: generative recommendation on semantic IDs, from raw events to served recommendations."""

__version__ = "0.1.0"
