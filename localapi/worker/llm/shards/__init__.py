"""One model over several processes: each rank is a worker that holds a part of it."""
