"""The lines of the log that are kept for the console."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from localapi.observability.log_buffer import KEPT, LONGEST, History

pytestmark = pytest.mark.everyday


@pytest.fixture
def history() -> Iterator[History]:
    history = History()
    logger = logging.getLogger("localapi")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(history)
    yield history
    logger.removeHandler(history)
    logger.setLevel(level)


LOG = logging.getLogger("localapi.runtime.registry")


def test_a_record_says_what_and_which_model_and_how_bad(history: History) -> None:
    LOG.warning("%s: %d requests wait", "bird", 3)
    (record,) = history.since(0)
    assert record["message"] == "bird: 3 requests wait"
    assert (record["number"], record["level"], record["model"], record["logger"]) == (1, "warning", "bird", LOG.name)


def test_the_last_ones_are_kept_and_asked_for_by_number(history: History) -> None:
    for number in range(KEPT + 10):
        LOG.info("line %d", number + 1)
    assert len(history.since(0)) == KEPT
    assert [record["message"] for record in history.since(KEPT + 8)] == ["line 509", "line 510"]
    assert history.last == KEPT + 10


def test_details_are_not_kept(history: History) -> None:
    LOG.debug("a detail")
    assert history.since(0) == []


def test_of_an_exception_there_is_its_kind_and_not_what_it_held(history: History) -> None:
    LOG.error("it failed", exc_info=ValueError("what somebody said"))
    (record,) = history.since(0)
    assert record["exception"] == "ValueError"
    assert "somebody" not in str(record)


def test_a_record_that_cannot_be_put_into_words_harms_nobody(
    history: History, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with caplog.filtering(_Nothing()):
        LOG.warning("%d requests wait", "three")
    LOG.warning("next")
    assert [(record["number"], record["message"]) for record in history.since(0)] == [(1, "next")]


class _Nothing(logging.Filter):
    """pytest's own handler raises, so it must not see the record."""

    def filter(self, _: logging.LogRecord) -> bool:
        return False


def test_a_long_line_is_cut(history: History) -> None:
    LOG.info("x" * 10_000)
    assert len(history.since(0)[0]["message"]) == LONGEST + 1
