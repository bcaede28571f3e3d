"""Ollama's API: chat, generate, embed, and information about models."""
