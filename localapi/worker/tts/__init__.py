"""Text to speech in a worker: Piper, eSpeak NG and mlx-audio."""
