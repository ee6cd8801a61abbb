"""Full-catalogue evaluation by baskets: rows, metrics, intervals and gates."""
