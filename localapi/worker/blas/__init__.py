"""Replace MLX's BLAS by OpenBLAS, on Linux.

MLX's CPU build computes matrix products with the reference BLAS, on one core and without vector instructions, about
twenty times slower than necessary. A library with the same symbols that is loaded globally before MLX takes precedence.
Unlike LD_PRELOAD, this does not affect child processes.
"""

from localapi.worker.blas.openblas import BlasChoice, install_openblas
from localapi.worker.blas.threads import Threads

__all__ = ["BlasChoice", "Threads", "install_openblas"]
