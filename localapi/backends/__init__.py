"""What can answer for an entry of the manifest: one file per backend."""
