"""faster-whisper called in Python, as somebody does who needs no server. It runs in the backend's environment.

    .../python transcription_direct.py MODEL

Each line of standard input is a file. For each, a line of JSON tells the seconds until the first text and until the
last, the processor time and the text.
"""

from __future__ import annotations

import json
import sys
import time

from faster_whisper import WhisperModel  # type: ignore[import-not-found]

BEAM_SIZE = 5
"""As both choose by themselves."""


def main() -> None:
    """Answer until the input ends."""
    whisper = WhisperModel(sys.argv[1], device="cpu", compute_type="int8")
    for line in sys.stdin:
        started, cpu = time.perf_counter(), time.process_time()
        # Without a filter for silence it is quicker, and invents words.
        segments, _ = whisper.transcribe(line.strip(), language="en", beam_size=BEAM_SIZE, vad_filter=True)
        texts, first = [], None
        for segment in segments:
            texts.append(segment.text)
            first = first or time.perf_counter() - started
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        print(json.dumps({"first": first, "seconds": seconds, "cpu": cpu, "text": "".join(texts)}), flush=True)


if __name__ == "__main__":
    main()
