"""SIDReasoner: a language model speaks semantic IDs, and may reason before it answers (arXiv 2603.23183)."""
