"""What an experiment between arms showed: read from one row a user, hidden when the traffic cannot be trusted."""
