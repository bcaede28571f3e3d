"""Cost of each place for a model: answers of one worker here, and through everything that can stand between.

    python -m tests.bench.places [--streams N] [--tokens N] [--rounds N] [--ray]

An upstream, and a pool of it, are compared with asking it directly; replicas, ranks and a worker on a node of Ray with
one worker. Both sides are asked in turns. `--ray` starts a cluster on this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from localapi.cli.text_table import table
from tests.bench import figures, models
from tests.bench import scripted as script
from tests.bench.processes import Aside, scripted
from tests.bench.upstream import Round, Way, measured
from tests.server import Server, serving


def main() -> None:
    """Build the model, measure, print."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.places", description=description)
    parser.add_argument("--model", default="tiny", help="a folder, tiny or middle (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--ray", action="store_true", help="start a cluster of Ray, too")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, Aside() as reader:
        path = models.made(arguments.model, Path(folder))
        for name, pair in pairs(path, with_ray=arguments.ray):
            rounds = list(measured(reader, pair, arguments.streams, arguments.tokens, arguments.rounds))
            rows.append(row(name, rounds))
    for line in table(["place", "tokens/s, compared", "first byte later by", "our CPU per token"], rows):
        print(line)
    print(f"Load of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")


def pairs(model: Path, *, with_ray: bool) -> Iterator[tuple[str, tuple[Way, Way]]]:
    """Each place, with what it is compared with before it. Only what is compared is running."""
    one: dict[str, Any] = {"backend": "mlx-lm", "path": str(model), "prefix_cache_disk_mb": 0, "preload": True}
    with scripted() as port:
        upstream = {"backend": "openai", "url": f"http://127.0.0.1:{port}", "preload": True}
        directly = Way(port, script.MODEL)
        entries = {"away": upstream, "pool": {"backend": "pool", "of": ["away"]}}
        with running(entries) as server:
            yield "openai, asked directly", (directly, way(server, "away"))
            yield "pool of it", (directly, way(server, "pool"))
    with running({"one": one}) as server:
        yield "one worker, with itself", (way(server, "one"), way(server, "one"))
    with running({"one": one, "many": {**one, "replicas": 2}}) as server:
        yield "replicas: 2, with one worker", (way(server, "one"), way(server, "many"))
    with running({"one": one, "split": {**one, "shards": 2}}) as server:
        yield "shards: 2, with one worker", (way(server, "one"), way(server, "split"))
    if with_ray:
        with cluster() as address:
            entries = {"one": one, "placed": {**one, "place": {}}}
            with running(entries, {"cluster": {"ray": address}}) as server:
                yield "Ray actor, with one worker", (way(server, "one"), way(server, "placed"))


@contextlib.contextmanager
def running(entries: dict[str, dict[str, Any]], options: dict[str, Any] | None = None) -> Iterator[Server]:
    """Our server with these models, loaded."""
    manifest = json.dumps({"server": options or {}, "chat": entries})
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), manifest) as server:
        for name, entry in entries.items():
            if entry["backend"] != "pool":
                server.wait_for(f"{name}: loaded")
        yield server


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """The address of a cluster of one node on this machine."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415  # only with the extra

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        yield made.address
    finally:
        made.shutdown()


def way(server: Server, model: str) -> Way:
    """The model of a server, with the processes that pass on what it writes: the server, and the gateway to Ray."""
    process = psutil.Process(server.process.pid)
    gateways = [child for child in process.children() if "localapi.cluster" in " ".join(child.cmdline())]
    return Way(server.port, model, (process, *gateways))


def row(name: str, rounds: list[Round]) -> list[str]:
    """Medians over the rounds."""
    before, after = ([each.speeds[at] for each in rounds] for at in (0, 1))
    later = [1000 * (each.firsts[1] - each.firsts[0]) for each in rounds]
    return [
        name,
        figures.ratio(after, before),
        f"{statistics.median(later):.1f} ms ({min(later):.1f} to {max(later):.1f})",
        f"{1e6 * statistics.median(each.cpu_seconds for each in rounds):.0f} µs",
    ]


if __name__ == "__main__":
    main()
