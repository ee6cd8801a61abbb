"""The life of a codebook: its artefact, append and refresh, its health, and what a change would break."""
