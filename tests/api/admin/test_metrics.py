"""`GET /metrics` on a real server: the numbers are those of the requests, and the labels are bounded."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from localapi.observability.counters import Histogram
from tests.server import Server, save, serving

ROOT = Path(__file__).parents[3]
MANIFEST = """
chat: {bird: {backend: echo, aliases: [b]}, demo: {backend: mlx-lm, path: demo}}
speech: {tone: {backend: echo}}
"""
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "one two three"}]}
CHAT = "/v1/chat/completions"
Values = dict[tuple[str, ...], float]


def scrape(server: Server) -> Values:
    """Each sample by its name and its labels' values in the order of their names."""
    text = server.request("GET", "/metrics").body.decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in prometheus(text)
        for sample in family.samples
    }


def test_requests_tokens_and_speech_are_counted_by_model(tmp_path: Path) -> None:
    with serving(tmp_path, MANIFEST) as server:
        empty = scrape(server)
        assert empty["localapi_prompt_tokens_total", "bird"] == 0
        used = [server.request("POST", CHAT, {"model": "b", **ASK}).json()["usage"] for _ in range(2)]
        server.request("POST", CHAT, {"model": "bird", "stream": True, **ASK})
        server.request("POST", CHAT, {"model": "x" * 150, **ASK})
        server.request("POST", CHAT, {"model": "bird"})
        server.request("POST", "/v1/audio/speech", {"model": "tone", "input": "Good morning!"})
        server.request("GET", "/nothing/at/all")
        server.request("GET", "/v1/models/bird")
        found = scrape(server)

    assert found["localapi_requests_total", CHAT, "bird", "200"] == 3
    assert found["localapi_requests_total", CHAT, "", "404"] == 1
    assert found["localapi_requests_total", CHAT, "", "400"] == 1
    assert found["localapi_requests_total", "/v1/audio/speech", "tone", "200"] == 1
    assert found["localapi_requests_total", "other", "", "404"] == 1
    assert found["localapi_requests_total", "/v1/models/<path:name>", "", "200"] == 1
    assert found["localapi_prompt_tokens_total", "bird"] == 3 * used[0]["prompt_tokens"]
    assert found["localapi_completion_tokens_total", "bird"] == 3 * used[0]["completion_tokens"] == 9
    assert found["localapi_time_to_first_token_seconds_count", "bird"] == 3
    assert found["localapi_time_to_first_token_seconds_bucket", "+Inf", "bird"] == 3
    assert found["localapi_time_per_output_token_seconds_count", "bird"] == 3
    assert found["localapi_speech_characters_total", "tone"] == 13
    assert found["localapi_speech_seconds_total", "tone"] > 0.5
    assert found["localapi_time_to_first_sound_seconds_count", "tone"] == 1
    assert found["localapi_revision",] == 1
    assert abs(found["localapi_last_reload_timestamp_seconds", "ok"] - time.time()) < 60


def test_workers_are_seen_with_their_memory_their_loads_and_their_deaths(tmp_path: Path) -> None:
    with serving(tmp_path, MANIFEST) as server:
        server.request("POST", CHAT, {"model": "demo", "max_tokens": 2, **ASK})
        server.request("POST", CHAT, {"model": "demo", "max_tokens": 2, **ASK})
        loaded = scrape(server)
        [worker] = server.workers()
        measured = worker.memory_info().rss
        os.kill(worker.pid, signal.SIGKILL)
        server.wait_for("was killed by SIGKILL")
        dead = scrape(server)

    assert loaded["localapi_model_ready", "demo"] == loaded["localapi_model_loads_total", "demo"] == 1
    assert 0.5 < loaded["localapi_worker_memory_bytes", "demo"] / measured < 2
    assert loaded["localapi_cached_tokens_total", "demo"] > 0
    assert loaded["localapi_requests_running", "demo"] == loaded["localapi_requests_waiting", "demo"] == 0
    assert (dead["localapi_worker_deaths_total", "demo"], dead["localapi_model_ready", "demo"]) == (1, 0)
    assert dead["localapi_worker_memory_bytes", "demo"] == 0


def test_reloads_are_counted_and_removed_models_are_forgotten(tmp_path: Path) -> None:
    with serving(tmp_path, MANIFEST) as server:
        server.request("POST", CHAT, {"model": "bird", **ASK})
        before = scrape(server)
        save(tmp_path / "models.yaml", "chat: {bird: {}}")
        server.wait_for("manifest rejected")
        save(tmp_path / "models.yaml", "chat: {other: {backend: echo}}")
        server.wait_for("reloaded revision 2")
        after = scrape(server)

    assert after["localapi_reloads_total", "failed"] >= before["localapi_reloads_total", "failed"] + 1
    assert after["localapi_reloads_total", "ok"] >= before["localapi_reloads_total", "ok"] + 1
    assert (
        after["localapi_last_reload_timestamp_seconds", "failed"]
        <= after["localapi_last_reload_timestamp_seconds", "ok"]
    )
    assert not [key for key in after if "bird" in key]
    assert after["localapi_prompt_tokens_total", "other"] == 0


def test_openmetrics_is_spoken_to_whoever_asks_and_each_metric_is_documented(tmp_path: Path) -> None:
    with serving(tmp_path, MANIFEST) as server:
        reply = server.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    families = list(openmetrics(reply.body.decode()))
    told = set(re.findall(r"`(localapi_\w+)`", (ROOT / "docs" / "observing.md").read_text()))
    ours = [family for family in families if family.name.startswith("localapi_")]
    assert told == {family.name + ("_total" if family.type == "counter" else "") for family in ours}
    assert all(family.documentation for family in ours)


def test_a_scrape_holds_nobody_up_and_costs_nothing_to_start(tmp_path: Path) -> None:
    with serving(tmp_path, MANIFEST) as server:
        for _ in range(50):
            server.request("GET", "/metrics")
        spent = psutil.Process(server.process.pid).cpu_times()
        for _ in range(50):
            server.request("GET", "/metrics")
        after = psutil.Process(server.process.pid).cpu_times()
    each = (after.user + after.system - spent.user - spent.system) / 50
    print(f"a scrape takes {1000 * each:.1f} ms of processor time")
    assert each < 0.1
    imported = "import sys, localapi.app; sys.exit(bool({'prometheus_client', 'opentelemetry'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", imported], cwd=ROOT, check=False).returncode == 0


def test_a_histogram_puts_a_value_below_its_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.add(value)
    assert (histogram.counts, histogram.sum) == ([2, 2, 1], 14.0)
