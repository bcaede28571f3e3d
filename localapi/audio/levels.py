"""Convert floating-point samples of models to 16-bit PCM."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

FULL_SCALE = 32767


def to_pcm16(samples: ArrayLike) -> bytes:
    """Return one channel of floats from -1 to 1 as 16-bit little-endian PCM; 16-bit integers are unchanged.

    The shape is (n,), or has only one axis longer than 1. Values beyond full scale, and infinity, are clipped; NaN is
    silence. Raise ValueError for several channels and for other types.
    """
    import numpy as np  # noqa: PLC0415  # the server has no use for it

    sound = np.asarray(samples)
    if sum(length > 1 for length in sound.shape) > 1:
        raise ValueError(f"one channel was expected, not an array of shape {sound.shape}")
    sound = sound.reshape(-1)
    if sound.dtype == np.int16:
        return sound.astype("<i2").tobytes()
    if not np.issubdtype(sound.dtype, np.floating):
        raise ValueError(f"floats or 16-bit integers were expected, not {sound.dtype}")
    # Half precision has no 32767.
    finite = np.nan_to_num(sound.astype(np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
    scaled: NDArray[np.floating] = np.rint(np.clip(finite, -1.0, 1.0) * FULL_SCALE)
    return scaled.astype("<i2").tobytes()
