"""What the server counts, as Prometheus reads it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
METHODS = frozenset(("GET", "HEAD", "POST", "OPTIONS"))
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """One server's counts; nothing is shared between two."""

    def __init__(self, num_runs: int) -> None:
        self.registry = CollectorRegistry()
        names = ("route", "method", "status")
        self.requests = Counter("zhuyi_requests", "Requests answered.", names, registry=self.registry)
        self.seconds = Histogram(
            "zhuyi_request_seconds",
            "From a request's head to its answer's end.",
            ["route"],
            registry=self.registry,
            buckets=SECONDS,
        )
        self.refused = Counter("zhuyi_refused", "Requests not done, and why.", ["reason"], registry=self.registry)
        self.waiting = Gauge("zhuyi_queue_requests", "Requests that wait or run.", registry=self.registry)
        self.rows = Gauge("zhuyi_batch_rows", "Rows in a run's batch.", ["run"], registry=self.registry)
        self.tokens = Counter(
            "zhuyi_tokens", "Tokens written, or read where none are.", ["run"], registry=self.registry
        )
        self.loaded_runs = Gauge("zhuyi_loaded_runs", "Runs in memory.", registry=self.registry)
        self.wanted_runs = Gauge("zhuyi_wanted_runs", "Runs that are to be in memory.", registry=self.registry)
        self.wanted_runs.set(num_runs)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self.registry)
