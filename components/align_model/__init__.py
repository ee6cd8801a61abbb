"""The reinforcement stage of systems that have one; others pass through and say so."""
