"""Where entries are kept: a memory tier per worker, one LMDB file for the node."""
