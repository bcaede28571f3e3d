"""Chat with models that see, by mlx-vlm, in an environment of its own."""
