"""OpenAI's API and related endpoints that its clients expect: one file per endpoint."""
