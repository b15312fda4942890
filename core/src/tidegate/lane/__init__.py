"""The fast HTTP/1.1 carrier."""
