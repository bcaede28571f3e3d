"""Encode, decode, stretch and join audio: 16-bit little-endian mono PCM with a sample rate in Hz.

This room knows nothing of HTTP, the manifest or engines. PyAV and numpy are imported only when they are used, so that
the server stays small and a worker needs only what it calls: `decoder`, `encoder` and `tempo` use PyAV, `repeats` and
`levels` use numpy, the rest uses the standard library.
"""
