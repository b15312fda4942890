"""Prompts as APIs: a versioned template becomes a REST operation."""
