"""The operating system: threads, errors, sizes, processes and timers."""
