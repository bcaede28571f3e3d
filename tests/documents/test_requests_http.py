"""requests.http, as an editor sends it: every request gets what its title says, and no endpoint is left out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.documents.pages import HERE, ROOT, page, quoted
from tests.server import Reply, Server


@dataclass(frozen=True)
class Sample:
    """One request of requests.http."""

    title: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any

    @property
    def status(self) -> int:
        """A title that ends with a number tells the status."""
        told = re.search(r": (\d{3})$", self.title)
        return int(told[1]) if told else 200


def samples() -> list[Sample]:
    preamble, *parts = re.split(r"^### ", (ROOT / "requests.http").read_text(), flags=re.MULTILINE)
    host = re.search(r"^@host = (\S+)$", preamble, re.MULTILINE)
    assert host
    assert host[1] == HERE
    return [sample(part) for part in parts]


def sample(text: str) -> Sample:
    head, _, body = text.partition("\n\n")
    title, request, *headers = head.splitlines()
    method, url = request.split()
    assert url.startswith("{{host}}/")
    told = dict(line.split(": ", 1) for line in headers)
    sent: Any = body.encode() or None
    if body.strip() and told.get("Content-Type") == "application/json":
        sent = json.loads(body)
    return Sample(title, method, url.removeprefix("{{host}}"), told, sent)


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: str(sample.title))
def test_each_sample_request_gets_what_its_title_says(sample: Sample, server: Server) -> None:
    if sample.path == "/status/events":
        return  # it has no end; tests/api/admin/test_status_events.py listens to it
    reply: Reply = server.request(sample.method, sample.path, sample.body, sample.headers)
    assert reply.status == sample.status, reply.body
    if sample.path == "/v1/chat/completions" and sample.body.get("stream"):
        assert reply.body.endswith(b"data: [DONE]\n\n")
    if "x-ignored-params" in sample.title:
        assert reply.headers["x-ignored-params"] == "colour"


def test_the_samples_visit_every_endpoint() -> None:
    names = {
        r"((?:/v1|/admin)/models)/[^/]+": r"\1/{id}",
        r"(/v1/responses)/resp_[^/]+": r"\1/{id}",
        r"(/admin/captures)/req_[^/]+": r"\1/{id}",
        r"(/console)/.+": r"\1/{file}",
        r"\?.*": "",
    }
    visited = set()
    for sample in samples():
        path = sample.path
        for pattern, name in names.items():
            path = re.sub(pattern, name, path)
        visited.add((sample.method, path))
    assert visited == {(row[0], quoted(row[1])[0]) for row in page("http.md").table("Endpoints")}
