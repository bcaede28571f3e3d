"""Print how models write tool calls and reasoning, for `localapi doctor`.

`python -P -m localapi.worker.llm.recognised_formats OPTIONS...`, where each argument is a JSON object with an entry's
options and a `folder`. Prints a line of JSON for each as soon as it is known. Weights are not read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from localapi.worker import transformers_index
from localapi.worker.model import read_object


def main() -> None:
    """Print what each folder's tokenizer shows, in the order of the arguments."""
    for argument in sys.argv[1:]:
        print(json.dumps(_told(json.loads(argument))), flush=True)  # noqa: T201  # what the parent reads


def _told(options: dict[str, Any]) -> dict[str, Any]:
    from localapi.worker.llm.output.recognition import recognise  # noqa: PLC0415  # after `transformers_index.keep`
    from localapi.worker.llm.weights import read_tokenizer  # noqa: PLC0415
    from localapi.worker.model import CannotLoad  # noqa: PLC0415

    folder = Path(options["folder"])
    try:
        tokenizer = read_tokenizer(folder, read_object(folder / "config.json"))
    except CannotLoad as error:
        return {"error": str(error)}
    found = recognise(tokenizer, tools=options["tool_format"], reasoning=options["reasoning_format"])
    return {"tool_format": found.tools, "reasoning_format": found.reasoning}


if __name__ == "__main__":
    transformers_index.keep()
    main()
