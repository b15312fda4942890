"""Tidegate: a programmable proxy made of plugins."""
