"""One cell of a study: one variant, one seed, fitted and judged."""
