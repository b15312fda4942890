"""The response cache, by RFC 9111: one file shared by the workers of a node."""
