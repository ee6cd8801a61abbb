"""What may go live: signed verdicts, immutable revisions and the ledger that says who asked for them."""
