"""Models in memory: instances, their leases, the queue before them, and the memory budget."""
