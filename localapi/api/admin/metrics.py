"""`GET /metrics`: metrics for Prometheus, labelled with the ids of the manifest's models.

prometheus_client is imported at the first scrape: the import takes a tenth of a second, and most servers are never
scraped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from quart import Blueprint, Response, request

from localapi.api.operation import Operation, Operations
from localapi.kinds import KINDS
from localapi.observability.counters import NO_MODEL, REQUESTS, Counters, Histogram
from localapi.runtime.cluster import ClusterWatch, workers_by_node
from localapi.runtime.pool import Pool
from localapi.runtime.registry import Registry
from localapi.runtime.where import where

if TYPE_CHECKING:
    from prometheus_client.core import Metric


def routes(registry: Registry, counters: Counters, cluster: ClusterWatch) -> Blueprint:
    """Return the endpoint."""
    blueprint = Blueprint("metrics", __name__)

    @blueprint.get("/metrics")
    async def metrics() -> Response:
        text, content_type = _encoded(registry, counters, cluster, request.headers.get("Accept", ""))
        return Response(text, content_type=content_type)

    return blueprint


OPERATIONS: Final[Operations] = {
    ("GET", "/metrics"): Operation(
        summary="Metrics for Prometheus.", content={"text/plain": None, "application/openmetrics-text": None}
    ),
}


def _encoded(registry: Registry, counters: Counters, cluster: ClusterWatch, accept: str) -> tuple[bytes, str]:
    from prometheus_client import CollectorRegistry, ProcessCollector  # noqa: PLC0415  # at the first scrape
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415
    from prometheus_client.registry import Collector  # noqa: PLC0415

    class Now(Collector):
        """Collector of the current values."""

        def collect(self) -> Iterator[Metric]:
            yield from _of_requests(registry, counters)
            yield from _of_instances(registry)
            yield from _of_places(registry)
            yield from _of_pools(registry)
            yield from _of_cluster(cluster, registry)
            yield from _of_manifest(registry, counters)

    collectors = CollectorRegistry()
    collectors.register(Now())
    ProcessCollector(registry=collectors)
    encode, content_type = choose_encoder(accept)
    return encode(collectors), content_type


def _of_requests(registry: Registry, counters: Counters) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily  # noqa: PLC0415

    requests = CounterMetricFamily("localapi_requests", "Finished requests.", labels=["model", "endpoint", "status"])
    for (model, endpoint, status), count in sorted(counters.requests.items()):
        if model != NO_MODEL and model not in registry.entries:
            continue  # it ended after its model was removed
        requests.add_metric([model, endpoint, str(status)], count)
    yield requests
    of_keys: dict[str, CounterMetricFamily] = {}
    for name in dict.fromkeys([REQUESTS, *(name for _, name in sorted(counters.by_key))]):
        help_text = f"The same as localapi_{name}_total, by API key."
        of_keys[name] = CounterMetricFamily(f"localapi_key_{name}", help_text, labels=["key"])
    for (key, name), amount in sorted(counters.by_key.items()):
        of_keys[name].add_metric([key], amount)
    yield from of_keys.values()
    for kind in KINDS.values():
        models = [name for name, entry in registry.entries.items() if entry.kind is kind]
        for metric in kind.metrics:
            if metric.bounds is None:
                family = CounterMetricFamily(f"localapi_{metric.name}", metric.help, labels=["model"])
                for model in models:
                    family.add_metric([model], counters.counts[model, metric.name])
                yield family
            else:
                histogram = HistogramMetricFamily(f"localapi_{metric.name}", metric.help, labels=["model"])
                for model in models:
                    counted = counters.histogram(model, metric)
                    histogram.add_metric([model], _cumulative(counted), counted.sum)
                yield histogram


def _cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
    return buckets


def _of_instances(registry: Registry) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

    def gauge(name: str, text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"localapi_{name}", text, labels=["model"])

    def counter(name: str, text: str) -> CounterMetricFamily:
        return CounterMetricFamily(f"localapi_{name}", text, labels=["model"])

    running = gauge("requests_running", "Requests being answered.")
    waiting = gauge("requests_waiting", "Requests without output so far.")
    ready = gauge("model_ready", "1 if the model is loaded.")
    healthy = gauge("model_healthy", "0 if the loaded model cannot answer, 1 if it can.")
    memory = gauge("worker_memory_bytes", "Memory of the model's processes.")
    loads = counter("model_loads", "Number of loads of the model.")
    deaths = counter("worker_deaths", "Workers that ended unexpectedly.")
    speculated = {
        "forced": counter("forced_tokens", "Tokens forced by a grammar, computed together with the previous one."),
        "proposed": counter("proposed_tokens", "Guessed tokens that the model checked."),
        "accepted": counter("accepted_tokens", "Guessed tokens that the model confirmed."),
    }
    for model in registry.entries:
        current = registry.instance(model)
        instances = [current, *(each for each in registry.retiring if each.name == model)]
        vitals = [each.vitals for each in instances if each.vitals is not None]
        leases = sum(each.leases for each in instances)
        begun = min(sum(each.running for each in vitals), leases)
        running.add_metric([model], begun)
        waiting.add_metric([model], leases - begun)
        ready.add_metric([model], float(current.state == "ready"))
        if current.vitals is not None:
            healthy.add_metric([model], float(current.vitals.healthy))
        known = [each.memory_bytes for each in vitals if each.memory_bytes is not None]
        if len(known) == len(vitals):
            memory.add_metric([model], sum(known))
        for name, family in speculated.items():
            counts = [getattr(each.speculated, name) for each in vitals if each.speculated is not None]
            if counts:
                family.add_metric([model], sum(counts))
        loads.add_metric([model], sum(each.loads for each in instances))
        deaths.add_metric([model], sum(each.worker_deaths for each in instances))
    yield from (running, waiting, ready, healthy, memory, loads, deaths, *speculated.values())


def _of_places(registry: Registry) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

    places = GaugeMetricFamily(
        "localapi_model_place", "Always 1; the labels tell where the model runs.", labels=["model", "kind", "at"]
    )
    parts = GaugeMetricFamily(
        "localapi_model_parts", "Members, replicas or ranks of the model.", labels=["model", "kind", "state"]
    )
    for name in registry.entries:
        place = where(registry.instance(name))
        places.add_metric([name, place.kind, place.at or ""], 1)
        for (kind, state), count in Counter((part.kind, part.state) for part in place.parts).items():
            parts.add_metric([name, kind, state], count)
    peers = GaugeMetricFamily("localapi_peer_healthy", "1 if the peer can be used, 0 if not.", labels=["peer"])
    for peer in registry.peers.by_name.values():
        if peer.is_known:
            peers.add_metric([peer.name], float(peer.fault is None))
    yield from (places, parts, peers)


def _of_pools(registry: Registry) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

    labels = ["model", "member"]
    answered = CounterMetricFamily("localapi_pool_answers", "Requests that a member answered.", labels=labels)
    passed = CounterMetricFamily(
        "localapi_pool_passed_over", "Requests that moved on to another member.", labels=labels
    )
    rests = GaugeMetricFamily("localapi_pool_member_away", "1 if the member gets no requests.", labels=labels)
    for name in registry.entries:
        pool = registry.instance(name)
        if not isinstance(pool, Pool):
            continue
        for member in pool.members:
            values, record = [name, member.entry.id], pool.record(member)
            answered.add_metric(values, record.answered)
            passed.add_metric(values, record.passed_over)
            rests.add_metric(values, float(pool.candidate(member).away is not None))
    yield from (answered, passed, rests)


def _of_cluster(cluster: ClusterWatch, registry: Registry) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

    def gauge(name: str, text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"localapi_cluster_{name}", text, labels=["node"])

    joined = GaugeMetricFamily("localapi_cluster_joined", "1 if the cluster can be used.")
    if cluster.address is not None:
        joined.add_metric([], float(cluster.joined))
    up = gauge("node_up", "0 if the node was lost recently.")
    cpus = gauge("cpus", "Processor cores that the node offers.")
    cpus_free = gauge("cpus_free", "Unreserved processor cores.")
    gpus = gauge("gpus", "GPUs that the node offers.")
    gpus_free = gauge("gpus_free", "Unreserved GPUs.")
    workers = gauge("workers", "Workers of this server on the node.")
    models = workers_by_node(registry.all_instances())
    names: set[str] = set()
    for node in cluster.nodes:  # live nodes come first; a node that is back has the name of a lost one
        if node.name in names:
            continue
        names.add(node.name)
        up.add_metric([node.name], float(node.alive))
        if node.alive:
            cpus.add_metric([node.name], node.cpus)
            cpus_free.add_metric([node.name], node.cpus_free)
            gpus.add_metric([node.name], node.gpus)
            gpus_free.add_metric([node.name], node.gpus_free)
            workers.add_metric([node.name], len(models.get(node.name, [])))
    yield from (joined, up, cpus, cpus_free, gpus, gpus_free, workers)


def _of_manifest(registry: Registry, counters: Counters) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

    reloads = CounterMetricFamily("localapi_reloads", "Number of times the manifest was read.", labels=["outcome"])
    last = GaugeMetricFamily(
        "localapi_last_reload_timestamp_seconds", "Time when the manifest was last read.", labels=["outcome"]
    )
    for ok, outcome in ((True, "ok"), (False, "failed")):
        reloads.add_metric([outcome], counters.reloads[ok])
        if ok in counters.reloaded_at:
            last.add_metric([outcome], counters.reloaded_at[ok])
    yield reloads
    yield last
    revision = registry.snapshot.revision
    yield GaugeMetricFamily("localapi_revision", "Active revision.", value=revision)
    yield GaugeMetricFamily("localapi_start_time_seconds", "Start time of the server.", value=registry.started_at)
