"""Backends, which can answer for an entry of the manifest: one file each."""
