"""Image files as bytes: their formats, and the facts in their headers. Nothing here decodes an image."""
