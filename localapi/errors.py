"""Every error that a client or an operator can see: those of commands first, then those of the API by status.

The class of an `ApiError` determines its status; `type`, `code` and `param` are what OpenAI's clients read
(https://platform.openai.com/docs/guides/error-codes); docs/http.md lists them. `http.replies` and the dialects turn
them into replies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import ClassVar, Final

MOST_SHOWN: Final = 100
"""Maximum characters of a value in a message; a recording in base64 has millions."""
_UNBROKEN: Final = re.compile(r"\S{300,}")


def shown(value: object) -> str:
    """Return a value in quotation marks for a message, shortened if it is long."""
    text = str(value)
    return repr(text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…")


def listed(names: Sequence[str], most: int) -> str:
    """Return names for a message, at most this many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def readable(message: str) -> str:
    """Return another program's message with very long words shortened."""
    return _UNBROKEN.sub(lambda run: f"{run[0][: MOST_SHOWN - 1]}…", message)


class LocalapiError(Exception):
    """Root of all errors whose message is written for people."""


class OperatorError(LocalapiError):
    """A problem that the operator of the server can fix."""


class StartError(OperatorError):
    """The server cannot start."""


class EnvironmentFailed(OperatorError):
    """The environment of a backend cannot be installed."""


class NoServer(OperatorError):
    """No server responds at the address, or the connection broke."""


class Refused(OperatorError):
    """The server replied with an error, whose message this is.

    `status` is the HTTP status; `code` is the code of the error, such as "model_not_found", if it has one.
    """

    def __init__(self, message: str, *, status: int, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class CannotEdit(OperatorError):
    """The manifest file cannot be edited, and is unchanged."""


class FileChanged(CannotEdit):
    """The manifest file has changed since the edit was made."""


class CannotDownload(OperatorError):
    """A repository of the Hub, or a file of it, cannot be downloaded."""


class CannotInstall(OperatorError):
    """The system service cannot be installed, removed or queried."""


@dataclass(frozen=True)
class Excerpt:
    """Lines of a file to show; `first_line` counts from 1."""

    first_line: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """One problem in the manifest.

    `source` is the file, or "environment NAME". `line` and `column` count from 1; they are None if the source has no
    lines. `key` is the dotted path of the value ("chat.demo.path").
    """

    source: str
    message: str
    key: str = ""
    line: int | None = None
    column: int | None = None
    passing: bool = False
    """True if the problem may disappear without an edit: a missing drive, a server without free descriptors."""
    excerpt: Excerpt | None = field(default=None, compare=False, repr=False)
    """Lines around the problem, as they were read."""

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}:{self.column}"
        text = f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"
        # A key may contain a line break.
        return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


class ManifestError(OperatorError):
    """The manifest cannot be applied. `problems` lists every problem found, at least one."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class ApiError(LocalapiError):
    """An error that a client of the API gets as its reply.

    `retryable` False tells OpenAI's SDKs not to retry (`x-should-retry: false`); with None they decide by the status.
    `retry_after_seconds` becomes the Retry-After header. `loggable` is the part of the message that repeats nothing
    from the request.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None
    retryable: bool | None = None
    retry_after_seconds: float | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retryable: bool | None = None,
        retry_after_seconds: float | None = None,
        loggable: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.reply_code = code if code is not None else self.code
        if retryable is not None:
            self.retryable = retryable
        if retry_after_seconds is not None:
            self.retry_after_seconds = retry_after_seconds
        self.loggable = loggable

    @property
    def is_ours(self) -> bool:
        """True if it is the server's fault, not the client's."""
        return self.status >= HTTPStatus.INTERNAL_SERVER_ERROR

    @property
    def logged(self) -> str:
        """Text for the log."""
        return self.message


class RequestError(ApiError):
    """The client has to change its request."""

    type = "invalid_request_error"


class InvalidRequest(RequestError):
    """The request is invalid. Its message may repeat a part of a conversation, so only `loggable` is logged."""

    status = 400

    @property
    def logged(self) -> str:
        """The loggable text, otherwise code and parameter."""
        return self.loggable or " ".join(filter(None, (self.reply_code or self.type, self.param)))


class WrongEndpoint(InvalidRequest):
    """The model is of another kind than the endpoint serves."""

    code = "wrong_endpoint"


class NoThreads(InvalidRequest):
    """The request asks the server to store a conversation of Anthropic's API."""

    code = "thread_unsupported_request"


class ContextLengthExceeded(InvalidRequest):
    """The prompt exceeds the model's context."""

    code = "context_length_exceeded"


class InvalidKey(RequestError):
    """The request has no API key, or one that is not in the manifest."""

    status = 401
    code = "invalid_api_key"


class Forbidden(ApiError):
    """The Host or Origin of the request is not allowed, or its key lacks the right."""

    status = 403
    type = "permission_error"
    code = "forbidden"


class NotFound(RequestError):
    """The path does not exist."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """The manifest has no such model."""

    code = "model_not_found"


class MethodNotAllowed(RequestError):
    """The path exists only with the methods in `allowed`."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: Iterable[str]) -> None:
        super().__init__(message)
        self.allowed = tuple(allowed)


class ModelInUse(RequestError):
    """The model cannot be unloaded while requests run on it."""

    status = 409
    code = "model_in_use"


class EditRefused(RequestError):
    """The manifest file cannot be edited in this way, and is unchanged."""

    status = 409
    code = "cannot_edit"
    diff = ""
    """Changes in the file since the client read it."""


class EditConflict(EditRefused):
    """The manifest file has changed since the client read it."""

    code = "manifest_changed"

    def __init__(self, message: str, *, diff: str) -> None:
        super().__init__(message)
        self.diff = diff


class RequestTooLarge(RequestError):
    """The request body exceeds the limit."""

    status = 413
    code = "request_too_large"


class UnsupportedEncoding(RequestError):
    """The Content-Encoding of the request body is not supported."""

    status = 415
    code = "unsupported_encoding"


class InvalidManifest(RequestError):
    """The manifest is invalid, or would be after the requested change; nothing is changed."""

    status = 422
    code = "invalid_manifest"

    def __init__(self, error: ManifestError) -> None:
        first, more = error.problems[0], len(error.problems) - 1
        super().__init__(f"The manifest would be invalid: {first}{f' (and {more} more)' if more else ''}.")
        self.problems = error.problems


class ModelBusy(ApiError):
    """There are too many requests for one model."""

    status = 429
    type = "rate_limit_error"
    code = "model_busy"


class GenerationFailed(ApiError):
    """The engine failed while it worked on this request."""

    status = 500
    code = "generation_failed"


class UpstreamFailed(ApiError):
    """The server that runs the model failed, or sent an invalid reply."""

    status = 502
    code = "upstream_failed"


class ModelUnavailable(ApiError):
    """The model is in the manifest but cannot answer now.

    `beside` are the ids of other models that the message names. Clients that may not see these models get the text
    `unnamed`.
    """

    status = 503
    code = "model_unavailable"

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        beside: Iterable[str] = (),
        unnamed: str = "",
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.beside = frozenset(beside)
        self.unnamed = unnamed


class LoadFailed(ModelUnavailable):
    """The model did not load; the message says why and what to do."""

    retryable: bool | None = False
    counts: ClassVar[bool] = True
    """True if this failure counts towards the back-off. False if it is found before a process is started, and so is
    cheap to find again: then each request tries again, however often the load has failed."""

    @property
    def fault(self) -> tuple[object, ...]:
        """The fault without words and sizes; equal for two failures if the same fault occurs again."""
        return (type(self),)


class LoadBrokenOff(LoadFailed):
    """The load was interrupted by something that may not happen again, such as the end of a process."""

    retryable = None


class PortTaken(LoadFailed):
    """Another process took a port before the worker could. Other ports may work."""


class FilesUnreadable(LoadFailed):
    """The model's files are missing, or cannot be read."""

    counts = False


class OutOfResources(LoadFailed):
    """The system is out of descriptors, processes or disk space."""

    retryable = None
    retry_after_seconds = 5
    counts = False

    def __init__(self, message: str, *, number: int | None = None) -> None:
        super().__init__(message)
        self.number = number
        """The system's error number."""

    @property
    def fault(self) -> tuple[object, ...]:
        """Class and the resource."""
        return (type(self), self.number)


class NoRoom(LoadFailed):
    """The memory budget has no room for the model besides models that must stay loaded."""

    counts = False

    @property
    def fault(self) -> tuple[object, ...]:
        """Class and the models that must stay."""
        return (type(self), self.beside)


class NoRoomAhead(LoadFailed):
    """A model is not preloaded, because other preloaded models would have to be unloaded for it."""


class WorkerEnded(ModelUnavailable):
    """The model's worker crashed, or was ended because it hung, before the response was complete."""


class UpstreamUnavailable(LoadFailed):
    """The server that runs the model cannot be reached, or accepts no requests now."""

    code = "upstream_unavailable"
    retryable = None
    counts = False


class UpstreamRefused(LoadFailed):
    """The server that runs the model rejects a setting of the manifest: the key, the model's name, or the address."""

    code = "upstream_refused"
    counts = False


class NoMember(ModelUnavailable):
    """No member of a pool can answer; the message gives the reason for each."""


class RequestTimeout(ApiError):
    """The request took longer than the manifest allows."""

    status = 504
    code = "request_timeout"
    retryable = False


class UpstreamTimeout(RequestTimeout):
    """The server that has the model sent nothing for too long."""

    code = "upstream_timeout"


class LoopDetected(ApiError):
    """The request has come back to a server that it has been at: servers name each other in their manifests."""

    status = 508
    code = "loop_detected"
    retryable = False
