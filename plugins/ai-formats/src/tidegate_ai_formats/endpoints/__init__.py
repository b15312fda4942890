"""Calls besides chat: embeddings, reranking, counting tokens; and those that only pass."""
