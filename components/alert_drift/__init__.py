"""A drift report becomes messages: one when an incident starts, one when it is over."""
