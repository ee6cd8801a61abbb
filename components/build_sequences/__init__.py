"""Checked events become baskets and the catalogue."""
