"""Encode, decode, stretch and join sound. Sound is 16-bit little-endian mono PCM with a rate in Hz.

Knows nothing of HTTP, the manifest or engines. PyAV and numpy are imported only when they are used, so that the server
stays small and a worker needs only what it calls: `decoder`, `encoder` and `tempo` use PyAV, `repeats` and `levels` use
numpy, the rest uses the standard library.
"""
