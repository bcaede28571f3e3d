"""Every error that a client or an operator can see, as a tree.

    LocalapiError
    ├── OperatorError            one clear line on the terminal, exit status 1
    │   ├── StartError           a busy port, a missing package, a missing manifest
    │   ├── EnvironmentFailed    the environment of a backend that cannot be installed
    │   ├── NoServer             the command line asks a server that does not answer
    │   ├── Refused              … or that answers with an error
    │   ├── CannotEdit           the manifest's file cannot be changed as the command line was asked to
    │   ├── CannotDownload       a repository that the command line was asked for
    │   ├── CannotInstall        the service of this user's session
    │   └── ManifestError        what is wrong in the manifest, with file, line, column and key
    └── ApiError                 an OpenAI-shaped reply with an HTTP status
        ├── InvalidRequest       400
        │   ├── WrongEndpoint
        │   └── ContextLengthExceeded
        ├── InvalidKey           401
        ├── Forbidden            403
        ├── NotFound             404
        │   └── ModelNotFound
        ├── MethodNotAllowed     405
        ├── ModelInUse           409
        ├── RequestTooLarge      413
        ├── UnsupportedEncoding  415
        ├── ModelBusy            429
        ├── GenerationFailed     500
        ├── ModelUnavailable     503
        │   ├── LoadFailed
        │   │   ├── OutOfResources
        │   │   ├── NoRoom
        │   │   └── NoRoomAhead
        │   └── WorkerEnded
        └── RequestTimeout       504

The class of an `ApiError` is its status; `type`, `code` and `param` are what OpenAI's clients read
(https://platform.openai.com/docs/guides/error-codes). How an error becomes a reply is `api.replies`' business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

MOST_SHOWN: Final = 100
"""Characters of a value that a message repeats: a recording in base64 has millions."""
_UNBROKEN: Final = re.compile(r"\S{300,}")


def shown(value: object) -> str:
    """Return a value in quotation marks for a message, cut if it is long."""
    text = str(value)
    return repr(text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…")


def readable(message: str) -> str:
    """Return a message without runs of characters that are no words, which others put into their errors."""
    return _UNBROKEN.sub(lambda run: f"{run[0][: MOST_SHOWN - 1]}…", message)


class LocalapiError(Exception):
    """The root: everything below it is meant to be read by a person."""


class OperatorError(LocalapiError):
    """Something that whoever runs the server can mend."""


class StartError(OperatorError):
    """The server cannot start as it was asked to."""


class EnvironmentFailed(OperatorError):
    """The environment of a backend cannot be installed."""


class NoServer(OperatorError):
    """No server answers where one is asked, or its connection broke."""


class Refused(OperatorError):
    """The server answered with an error; the message is the server's.

    `status` is HTTP's; `code` is the error's own, such as "model_not_found", where it has one.
    """

    def __init__(self, message: str, *, status: int, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class CannotEdit(OperatorError):
    """The manifest's file cannot be changed as the command line was asked to; it is as it was."""


class CannotDownload(OperatorError):
    """A repository of the Hub, or a file of it, cannot be had."""


class CannotInstall(OperatorError):
    """The service that starts the server cannot be installed, removed or looked at."""


@dataclass(frozen=True)
class Excerpt:
    """Some lines of a file, for people; `first_line` counts from 1."""

    first_line: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """One thing wrong in the manifest.

    `source` is the file (or "environment NAME") that said it; `line` and `column` count from 1 and are None where the
    source has no lines; `key` is the dotted path of the value ("chat.demo.path").
    """

    source: str
    message: str
    key: str = ""
    line: int | None = None
    column: int | None = None
    passing: bool = False
    """Whether it may pass although nobody edits a file: a drive that is away, a server without descriptors."""
    excerpt: Excerpt | None = field(default=None, compare=False, repr=False)
    """The lines around it, as they were read."""

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}:{self.column}"
        text = f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"
        return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)  # a key may hold a line's end


class ManifestError(OperatorError):
    """The manifest cannot be applied; `problems` holds at least one entry and names every place."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class ApiError(LocalapiError):
    """An error that a client of the API gets as its reply.

    `retryable` False tells OpenAI's SDKs not to send the same request again (`x-should-retry: false`); None leaves
    them to their rule for the status. `retry_after_seconds` becomes the Retry-After header.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retryable: bool | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.reply_code = code if code is not None else self.code
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds

    @property
    def logged(self) -> str:
        """What the log tells of it."""
        return self.message


class InvalidRequest(ApiError):
    """The request cannot be served as it was written."""

    status = 400
    type = "invalid_request_error"

    @property
    def logged(self) -> str:
        """Not the message, which shows what was found: it may be a part of somebody's conversation."""
        return " ".join(filter(None, (self.reply_code or self.type, self.param)))


class WrongEndpoint(InvalidRequest):
    """A speech model at a chat endpoint, or the reverse."""

    code = "wrong_endpoint"


class ContextLengthExceeded(InvalidRequest):
    """The prompt does not fit the model's context."""

    code = "context_length_exceeded"


class InvalidKey(ApiError):
    """The request has no API key, or one that the manifest does not know."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class Forbidden(ApiError):
    """The Host or Origin of the request is not one that this server answers, or its key does not open this."""

    status = 403
    type = "permission_error"
    code = "forbidden"


class NotFound(ApiError):
    """There is no such path."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    """The manifest has no such model."""

    code = "model_not_found"


class MethodNotAllowed(ApiError):
    """The path exists, with other methods; these are `allowed`."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: Iterable[str]) -> None:
        super().__init__(message)
        self.allowed = tuple(allowed)


class ModelInUse(ApiError):
    """The model cannot be unloaded while requests run on it."""

    status = 409
    type = "invalid_request_error"
    code = "model_in_use"


class RequestTooLarge(ApiError):
    """The body is over the limit."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class UnsupportedEncoding(ApiError):
    """The body's Content-Encoding is not one that this server decodes."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_encoding"


class ModelBusy(ApiError):
    """Too many requests for one model."""

    status = 429
    type = "rate_limit_error"
    code = "model_busy"


class GenerationFailed(ApiError):
    """The engine failed while it worked on this request."""

    status = 500
    code = "generation_failed"


class ModelUnavailable(ApiError):
    """The model exists in the manifest and cannot answer now."""

    status = 503
    code = "model_unavailable"


class LoadFailed(ModelUnavailable):
    """The model did not load; the message says why and what to do.

    `counts`: whether it speaks against the model. It does not where this was found before a process was started, and
    finding it again costs nothing: then the next request tries again, however often that has failed.
    """

    def __init__(self, message: str, *, retryable: bool | None = False, counts: bool = True) -> None:
        super().__init__(message, retryable=retryable)
        self.counts = counts


class OutOfResources(LoadFailed):
    """The system has no descriptor, process or room left for what the server was about to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=None, counts=False)
        self.retry_after_seconds = 5


class NoRoom(LoadFailed):
    """The memory budget does not hold the model beside what must stay.

    `beside` are the ids of these others; not everybody may know of them, who are told `unnamed`.
    """

    def __init__(self, message: str, *, beside: Iterable[str], unnamed: str) -> None:
        super().__init__(message, counts=False)
        self.beside = frozenset(beside)
        self.unnamed = unnamed


class NoRoomAhead(LoadFailed):
    """A model is not loaded before somebody asks for it: others that were loaded so would have to go."""


class WorkerEnded(ModelUnavailable):
    """The model's worker ended by itself, or was ended because it hung, before the answer was complete."""


class RequestTimeout(ApiError):
    """The model worked on the request for longer than the manifest allows."""

    status = 504
    code = "request_timeout"

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=False)
