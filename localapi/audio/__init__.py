"""Sound as PCM, 16-bit little-endian mono bytes beside a rate in Hz: written, read, stretched, joined.

It knows nothing of HTTP, the manifest or engines. Nothing here imports PyAV or numpy before it is used, so that the
server starts small and that a worker needs only what it calls: `decoder`, `encoder` and `tempo` use PyAV, `repeats` and
`levels` use numpy, the rest is the standard library.
"""
