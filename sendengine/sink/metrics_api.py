"""Every metric of the HTTP API, declared once. Labels are words of ours: operations and statuses, never an id from outside."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["CONTENT_TYPE_LATEST", "ApiMeter"]

LATENCIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class ApiMeter:
    """Owner of one process' counts."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry = registry or CollectorRegistry()
        self._requests = Counter("sendengine_api_requests", "Requests answered.", ("operation", "status"), registry=registry)
        self._seconds = Histogram(
            "sendengine_api_seconds", "From a request's head to the head of its answer.", ("operation",), registry=registry,
            buckets=LATENCIES,
        )  # fmt: skip
        self._rows = Counter("sendengine_api_rows", "Recipients read from bodies and uploads.", registry=registry)
        self._now = Gauge("sendengine_api_requests_now", "Requests on their way.", registry=registry)
        self._lasting = Gauge("sendengine_api_lasting_now", "Uploads and streams that go on.", ("kind",), registry=registry)
        self._receipts = Counter(
            "sendengine_sms_receipts", "Receipts of SMS by call-back, by what they say.", ("provider", "result"), registry=registry
        )
        self._hooks = Counter("sendengine_webhook_deliveries", "Tries to deliver an event to a webhook.", ("result",), registry=registry)

    def answered(self, operation: str, status: int, seconds: float) -> None:
        self._requests.labels(operation, status).inc()
        self._seconds.labels(operation).observe(seconds)

    def rows(self, count: int) -> None:
        self._rows.inc(count)

    def receipt(self, provider: str, result: str) -> None:
        self._receipts.labels(provider, result).inc()

    def hook(self, result: str) -> None:
        self._hooks.labels(result).inc()

    def exposition(self, requests: int, uploads: int, streams: int) -> bytes:
        self._now.set(requests)
        self._lasting.labels("upload").set(uploads)
        self._lasting.labels("stream").set(streams)
        return generate_latest(self._registry)
