"""Every item gets a semantic ID."""
