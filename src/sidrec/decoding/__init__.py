"""Constrained decoding: prefix trie, beam search and the exhaustive oracle."""
