"""Chat with models that accept images, by mlx-vlm, in its own environment."""
