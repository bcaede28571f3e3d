"""Transcription: speech to text."""
