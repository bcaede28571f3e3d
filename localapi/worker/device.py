"""What MLX computes on: `python -P -m localapi.worker.device` says it in a line of JSON. For `localapi doctor`."""

from __future__ import annotations

import importlib.metadata
import json

from localapi.worker import blas


def main() -> None:
    """The kind of device (gpu or cpu), how it is driven, its name, and its memory in bytes where MLX knows it."""
    place = blas.take_place()
    import mlx.core as mx  # noqa: PLC0415  # after the BLAS that it shall find

    device = mx.default_device()
    about = mx.device_info()
    driver = "Metal" if mx.metal.is_available() else "CUDA" if device.type == mx.gpu else "CPU"
    told = {
        "version": importlib.metadata.version("mlx"),
        "driver": driver,
        "name": about.get("device_name"),
        "blas": place and {"fast": place.taken, "says": place.says},
        "memory_bytes": about.get("max_recommended_working_set_size") or about.get("memory_size"),
    }
    print(json.dumps(told))  # noqa: T201  # what the parent reads


if __name__ == "__main__":
    main()
