"""Models in memory: instances, their leases, the queue for them, and the memory budget."""
