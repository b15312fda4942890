"""Loads addons, compiles their pipelines, runs their hooks; no I/O on the request path."""
