"""Gemini: generateContent and streamGenerateContent, of AI Studio and of Vertex AI.

Source: ai.google.dev/api/generate-content. Field names come in camelCase or, as protobuf's JSON
mapping allows, in snake_case; they leave in camelCase.
"""

from .format import FORMAT, GeminiFormat

__all__ = ["FORMAT", "GeminiFormat"]
