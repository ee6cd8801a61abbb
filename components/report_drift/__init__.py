"""A week of exposures and outcomes becomes a drift report with a one-line verdict."""
