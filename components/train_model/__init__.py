"""The supervised stage: baskets and semantic IDs in, a model out."""
