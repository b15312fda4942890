"""Does not load."""

LIMIT = {}["limit"]
