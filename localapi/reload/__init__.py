"""From an edited file to a new revision: notice the edit, and apply it."""
