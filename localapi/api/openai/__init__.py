"""OpenAI's API and what its clients expect beside it: one file per endpoint."""
