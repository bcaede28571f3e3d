"""OpenBLAS in the place of MLX's BLAS, on Linux.

MLX's CPU build computes matrix products with the reference BLAS, on one core and without vector instructions: some
twenty times slower than need be. A library with the same names that is loaded before MLX, for all to see, is found
first. Nothing is passed on to child processes, as it would be with LD_PRELOAD.
"""

from localapi.worker.blas.openblas import Place, take_place
from localapi.worker.blas.threads import Threads

__all__ = ["Place", "Threads", "take_place"]
