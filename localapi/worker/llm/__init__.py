"""Chat and completions in a worker, on mlx-lm."""
