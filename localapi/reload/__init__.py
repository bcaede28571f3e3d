"""From an edited file to a new revision: noticing the edit, and applying it."""
