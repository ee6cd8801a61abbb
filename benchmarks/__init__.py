"""What is measured beside its peers; nothing imports this."""
