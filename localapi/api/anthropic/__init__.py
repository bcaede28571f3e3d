"""Anthropic's API: messages, token counts, and models in its form."""
