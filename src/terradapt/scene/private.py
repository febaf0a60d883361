"""Dask's scheduler and workers for one user on one machine: keys of the run, no web pages.

Whoever reaches a Dask port runs code as its owner, and a machine's loopback is shared by all of its
accounts. So every connection needs the run's key on both sides, which is made for the run and kept
in memory, and the pages that show a cluster's state, which ask for no key, are not served.
"""

from __future__ import annotations

from typing import Any

from distributed import Nanny, Scheduler, SpecCluster, Worker
from distributed.security import Security


class _Unseen:
    """A node without the HTTP server that shows its state to everyone."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Serve nothing."""


class PrivateScheduler(_Unseen, Scheduler):
    """A scheduler without pages."""


class PrivateWorker(_Unseen, Worker):
    """A worker without pages."""


def private_cluster(environments: list[dict[str, str]]) -> SpecCluster:
    """Start a scheduler and a process for each environment, reachable with the run's key alone.

    Raises:
        ImportError: cryptography, which makes the key, is not installed.
    """
    place = {
        "host": "127.0.0.1",
        "protocol": "tls",
        "dashboard": False,
        "security": Security.temporary(),
    }
    worker = {**place, "nthreads": 1, "memory_limit": 0, "worker_class": PrivateWorker}
    workers = {
        i: {"cls": Nanny, "options": {**worker, "env": env}} for i, env in enumerate(environments)
    }
    scheduler = {"cls": PrivateScheduler, "options": place}
    return SpecCluster(workers, scheduler, security=place["security"])
