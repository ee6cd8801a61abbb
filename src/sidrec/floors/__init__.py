"""Floor baselines: what a model must be shown beside, and beat before it is worth serving."""
