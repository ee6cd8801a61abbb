"""The feature store: `features.py` says what it holds, `store.py` where it lies and how it is replaced."""
