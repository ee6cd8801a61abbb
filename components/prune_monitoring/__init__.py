"""Old reports, runs and exposures go, by age and size."""
