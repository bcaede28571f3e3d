"""A Ray cluster of nodes on this machine, as a program: `python nodes.py`, then "add NAME" or "kill NAME" on its stdin.

A process of its own, because Ray's warnings and threads are none of the tests' business. It answers each line with one.
"""

from __future__ import annotations

import sys
from typing import Any

from ray.cluster_utils import Cluster

STORE_BYTES = 80 * 1024 * 1024
LOST_SOON = {"health_check_period_ms": 500, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 3}
"""Options of Ray. It gives up a node after 15 seconds without them."""


def main() -> None:
    """Start one node, "left", and do what the lines say until the end of the input."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"include_dashboard": False, "_system_config": LOST_SOON, **options("left")},
    )
    nodes: dict[str, Any] = {"left": cluster.head_node}
    print(cluster.address, flush=True)
    for line in sys.stdin:
        what, name = line.split()
        if what == "add":
            nodes[name] = cluster.add_node(**options(name))
        else:
            cluster.remove_node(nodes.pop(name), allow_graceful=False)
        print("done", flush=True)
    cluster.shutdown()


def options(name: str) -> dict[str, Any]:
    """A node that has a resource of its own name, and one that all have."""
    resources = {f"only_{name}": 4, "any": 4}
    return {"num_cpus": 6, "node_name": name, "resources": resources, "object_store_memory": STORE_BYTES}


if __name__ == "__main__":
    main()
