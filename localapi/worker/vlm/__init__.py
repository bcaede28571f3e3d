"""Chat with models that see, by mlx-vlm, in its own environment."""
