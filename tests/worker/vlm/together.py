"""Answer requests alone and all at once with a model of mlx-vlm, and print both as JSON. Runs in its environment.

`python together.py ROOT FOLDER batch|lone [RECORDING]`; with `lone`, as if the model had failed its trial.
"""

# ruff: noqa: PLC0415  # the packages are those of the environment, and of the repository

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(root: str, folder: str, how: str, *recordings: str) -> None:
    sys.path.insert(0, root)
    from PIL import Image

    from localapi.worker.model import Host
    from localapi.worker.protocol import AudioPart, Chat, ImagePart, JsonSchema, Message, Sampling, TextPart
    from localapi.worker.vlm import mlx_vlm
    from localapi.worker.vlm.trial import Findings

    tried = mlx_vlm.tried
    mlx_vlm.tried = {"batch": tried, "lone": lambda *_: Findings()}[how]

    def picture(width: int, height: int, color: tuple[int, int, int]) -> ImagePart:
        file = io.BytesIO()
        Image.new("RGB", (width, height), color).save(file, "PNG")
        return ImagePart("", data=file.getvalue())

    red, green = picture(64, 48, (200, 0, 0)), picture(300, 200, (0, 200, 0))
    contents: list[list[Any]] = [[red], [green], [], [red, green]]
    contents += [[AudioPart(Path(file).read_bytes(), "wav", 30.0)] for file in recordings]
    schema = JsonSchema('{"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}', strict=True)
    random = Sampling(temperature=1.0, seed=5, repetition_penalty=1.3)

    def requests(words: str) -> list[Chat]:
        greedy = Sampling(temperature=0)
        asked: list[dict[str, Any]] = [
            {"parts": parts, "sampling": greedy, "max_tokens": 12 + 7 * number} for number, parts in enumerate(contents)
        ]
        asked += [
            {"parts": contents[-1], "sampling": random, "max_tokens": 20, "n": 2},
            {"parts": contents[0], "sampling": greedy, "max_tokens": 40, "form": schema},
        ]
        return [
            Chat(id=number, messages=[Message("user", [*fields.pop("parts"), TextPart(words)])], **fields)
            for number, fields in enumerate(asked)
        ]

    read = threading.Event()
    host = Host(report=lambda _: None, wake=read.set)
    options = {"path": folder, "prefix_cache_mb": 0, "reasoning_format": "none"}
    engine = mlx_vlm.load(options, host)

    def answers(asked: Sequence[Chat]) -> tuple[list[Any], int]:
        """Return the answers, and the most requests that had text in one step."""
        found: dict[int, Any] = {request.id: {} for request in asked}
        most, left = 0, len(asked)
        for request in asked:
            engine.take(request)
        while left:
            if not engine.busy:  # images are read on a thread
                read.wait()
                read.clear()
            events = engine.step()
            left -= sum(type(event).__name__ in {"Failed", "Finished"} for event in events)
            most = max(most, len({event.id for event in events if hasattr(event, "text")}))
            for event in events:
                if hasattr(event, "text"):
                    said = found[event.id]
                    said[event.choice] = said.get(event.choice, "") + event.text
                elif type(event).__name__ in {"Failed", "Ended"}:
                    found[event.id][f"{type(event).__name__} {getattr(event, 'choice', '')}"] = str(event)
        return list(found.values()), most

    words = "What is there, and what is it there for?"
    alone = [answers([request])[0][0] for request in requests(words)]
    together, most = answers(requests(words))
    print(json.dumps({"batched": engine.loaded.batched, "alone": alone, "together": together, "most": most}))


if __name__ == "__main__":
    main(*sys.argv[1:])
