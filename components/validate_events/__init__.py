"""Raw events become checked events, sales and items, or the run stops with a reason."""
