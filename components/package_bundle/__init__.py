"""The release unit: codebook, catalogue, trie, weights, recipe and decode config in one addressed folder."""
