"""Reuse of what was computed for an earlier prompt with the same prefix."""
