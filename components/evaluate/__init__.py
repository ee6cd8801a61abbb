"""Judges a packaged bundle on the gate window, beside the floors and the champion."""
