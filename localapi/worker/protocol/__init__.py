"""Messages between server and worker: a file for each kind of model, and `frames`, which lists and frames them all.

The structs know nothing of HTTP, YAML or any engine; they use OpenAI's terms if OpenAI has one. An engine inside the
server uses the same structs without the frames.
"""

# ruff: noqa: F403  # every public name of these files is one of this package
from localapi.worker.protocol.capabilities import *
from localapi.worker.protocol.chat_events import *
from localapi.worker.protocol.chat_request import *
from localapi.worker.protocol.forwarding import *
from localapi.worker.protocol.frames import *
from localapi.worker.protocol.loading import *
from localapi.worker.protocol.speech import *
from localapi.worker.protocol.transcription import *
from localapi.worker.protocol.vectors import *
