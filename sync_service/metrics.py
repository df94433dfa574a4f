"""What the service counts, as Prometheus reads it; deploy/grafana-dashboard.json draws it."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# From "at once" to "after a night without a server", in seconds.
_LAG_BUCKETS_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1800, 7200, 43200)


class Metrics:
    """One set a process; each metric's help says what it counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.relayed_changes = self._counter("relayed_changes", "Changes of the feed read")
        self.published = self._counter("published_messages", "Messages confirmed by RabbitMQ")
        self.applied = self._counter("applied_messages", "Messages applied to the index")
        self.batches = self._counter("batches", "Transactions of the index that applied a batch")
        self.tries = self._counter("failed_tries", "Failed tries of single messages")
        self.dead = self._counter("dead_lettered_messages", "Messages set aside as dead letters")
        self.reconnects = Counter(
            "biobank_sync_reconnects",
            "Times that a part had to begin anew, by part",
            ["part"],
            registry=self.registry,
        )
        self.lag = self._gauge("lag_seconds", "Age of the oldest change that the index lacks")
        self.pending = self._gauge("pending_changes", "Changes that the index lacks")
        self.refused = self._gauge("refused_changes", "Refused changes that nobody discarded")
        self.queued = self._gauge("queued_messages", "Messages ready in the queue")
        self.dead_letters = self._gauge("dead_letters", "Messages in the dead-letter queue")
        self.blocked = self._gauge("publisher_blocked", "1 while RabbitMQ takes no messages")
        self.foreign = self._gauge(
            "foreign_changes", "Objects of the catalog that other programs changed, not mended yet"
        )
        self.reconciled = self._gauge(
            "reconciled_timestamp_seconds", "When all of the catalog was last compared with its log"
        )
        self.idle = Gauge(
            "biobank_sync_idle_seconds",
            "Time since a part moved or had nothing to do, by part",
            ["part"],
            registry=self.registry,
        )
        self.commit_to_applied = Histogram(
            "biobank_sync_commit_to_applied_seconds",
            "Time from a commit in the catalog to its being visible in the index",
            buckets=_LAG_BUCKETS_S,
            registry=self.registry,
        )

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)

    def names(self) -> frozenset[str]:
        """The names of all samples, as queries use them."""
        return frozenset(
            f"{metric.name}{suffix}"
            for metric in self.registry.collect()
            for suffix in _SUFFIXES.get(metric.type, ("",))
        )

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"biobank_sync_{name}", text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"biobank_sync_{name}", text, registry=self.registry)


_SUFFIXES: Final = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
