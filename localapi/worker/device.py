"""Print MLX's device as a line of JSON, for `localapi doctor`: `python -P -m localapi.worker.device`."""

from __future__ import annotations

import importlib.metadata
import json

from localapi.worker import blas


def main() -> None:
    """Print the version of MLX, and the device's driver, name, BLAS and memory in bytes."""
    choice = blas.install_openblas()
    import mlx.core as mx  # noqa: PLC0415  # after the BLAS that it shall find

    device = mx.default_device()
    about = mx.device_info()
    driver = "CUDA" if device.type == mx.gpu else "CPU"
    if mx.metal.is_available():
        driver = "Metal"
    told = {
        "version": importlib.metadata.version("mlx"),
        "driver": driver,
        "name": about.get("device_name"),
        "blas": choice and {"fast": choice.is_fast, "says": choice.description},
        "memory_bytes": about.get("max_recommended_working_set_size") or about.get("memory_size"),
    }
    print(json.dumps(told))  # noqa: T201  # what the parent reads


if __name__ == "__main__":
    main()
