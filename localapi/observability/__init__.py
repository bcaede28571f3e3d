"""What the server tells of itself: the log, its last lines, and counters."""
