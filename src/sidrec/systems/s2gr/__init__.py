"""S²GR: stepwise latent thinking over semantic IDs (arXiv 2601.18664)."""
