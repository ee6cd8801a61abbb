"""The three gates joined into one signed verdict over the bundle's full hash."""
