"""What a fit needs that no training setting changes, such as a teacher's texts; other systems need none and say so."""
