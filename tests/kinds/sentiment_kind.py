"""A made-up kind of model, whole in one file: whether a text is in good spirits.

`python -m tests.kinds.sentiment_kind` is localapi with this kind. Nothing else in the program knows of it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Final, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field
from quart import Blueprint, Response

from localapi.api.operation import ERRORS_OF_WORK, JSON, Operation, Operations
from localapi.backends.engine import Engine, InProcessEngine, ReportLoading
from localapi.backends.options import EntryOptions
from localapi.http import body, request_context
from localapi.http.generation import begin, request_ids
from localapi.http.replies import json_reply
from localapi.kinds import Kind, ModelObject, Variables, by_name, register
from localapi.observability.counters import Metric
from localapi.runtime.registry import Registry
from localapi.worker.protocol import DetokenizedText, Event, Loaded, Request, Tokenize

JUDGED: Final = Metric("sentiment_texts", "Texts that were judged.")


class SentimentOptions(EntryOptions):
    """An entry of the section `sentiment`."""

    section = "sentiment"
    labels: Annotated[list[str], Field(description="What a text can be.", examples=[["glad"]])] = ["good", "bad"]  # noqa: RUF012


class SentimentEcho(SentimentOptions):
    """A model that likes whatever says so."""

    backend: Annotated[Literal["echo"], Field(description="No model: looks for the label in the text.")]

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return SentimentEngine()


class SentimentEngine(InProcessEngine):
    """The engine."""

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        assert isinstance(request, Tokenize)
        yield DetokenizedText(request.id, request.text or "")


class SentimentRequest(BaseModel):
    """A text to judge."""

    model_config = ConfigDict(strict=True)

    model: str
    text: str


class SentimentReply(msgspec.Struct):
    """Verdict on the text."""

    label: str | None


def routes(registry: Registry) -> Blueprint:
    blueprint = Blueprint("sentiment", __name__)

    @blueprint.post("/v1/sentiment")
    async def judge() -> Response:
        request = body.parse(SentimentRequest, await body.read_object())
        ask = Tokenize(next(request_ids), request.text)
        generation = begin(registry, request.model, SENTIMENT)
        async with aclosing(generation.events(lambda _: [ask])) as events:
            text = await anext(events)
        assert isinstance(text, DetokenizedText)
        request_context.current().counters.count(generation.entry.id, JUDGED, 1)
        options = generation.entry.options
        assert isinstance(options, SentimentOptions)
        label = next((label for label in options.labels if label in text.text), None)
        return json_reply(SentimentReply(label))

    return blueprint


OPERATIONS: Final[Operations] = {
    ("POST", "/v1/sentiment"): Operation(
        summary="Whether a text is in good spirits.",
        content={JSON: SentimentReply},
        body=SentimentRequest,
        example={"text": "It is good."},
        errors=ERRORS_OF_WORK,
    )
}


class SentimentModel(ModelObject):
    """Description in `/v1/models`."""

    labels: list[str] = []  # noqa: RUF012  # msgspec copies it

    def describe(self, options: EntryOptions, loaded: Loaded | None) -> None:
        assert isinstance(options, SentimentOptions)
        self.labels = options.labels


SENTIMENT: Final = Kind(
    name="sentiment",
    description="Models that judge texts, by their ids.",
    options=SentimentOptions,
    backends=by_name(SentimentEcho),
    usual_backend="echo",
    variables=Variables(
        entry_id="local-sentiment",
        names=("SENTIMENT_MODEL_ID",),
        options={"description": ("SENTIMENT_DESCRIPTION",)},
        backend="echo",
    ),
    endpoints=("tests.kinds.sentiment_kind",),
    metrics=(JUDGED,),
    model=SentimentModel,
)

if __name__ == "__main__":
    from localapi.cli import main
    from tests.kinds import sentiment_kind  # the module that endpoints are found in; this one is called __main__

    register(sentiment_kind.SENTIMENT)
    main()
