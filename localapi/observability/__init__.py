"""The log, its last lines, and counters."""
