"""Detect an edited file, and apply it as a new revision."""
