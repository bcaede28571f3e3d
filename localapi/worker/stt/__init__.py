"""Transcription: sound to text."""
