"""Item texts become vectors by a frozen embedder."""
