"""Backends that can serve an entry of the manifest: one file each."""
