"""REG4Rec: unordered multi-codebook IDs, slots chosen by confidence, paths aligned and pruned (arXiv 2508.15308)."""
