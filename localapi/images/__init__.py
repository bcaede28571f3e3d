"""Image files as bytes: their formats, and what their first bytes tell. Nothing here decodes a picture."""
