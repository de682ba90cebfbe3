"""Range search measured: the real engine and its rivals on the same fleets and questions."""
