"""The figures of the service for Prometheus, in a registry of their own (docs/metrics.md).

No label has a value that a client could choose: what is unknown is counted as "other".
"""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.engine.engine import Engine
from headrace.engine.sandbox_state import SandboxState
from headrace.model.errors import HeadraceError
from headrace.model.events import FinishReason

OTHER = "other"
_MOST_DIALECTS = 32
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"})
_KINDS = ("execution", "process", "watch")
_STATES = (SandboxState.RUNNING, SandboxState.PAUSED)
_QUICK = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG = (*_QUICK, 30.0, 120.0, 600.0, 3600.0)


class Metrics:
    """Counts what the engine and the service tell; a `Meter` for the engine.

    A call takes a few microseconds, does no I/O and does not raise.
    """

    def __init__(self) -> None:
        self._registry = _Registry()
        self._engine = _EngineGauges()
        self._registry.register(self._engine)
        ProcessCollector(registry=self._registry)
        self._creates = _Creates(self._registry)
        self._runs = _Runs(self._registry)
        self._requests = _Requests(self._registry)
        self._ends = Counter(
            "headrace_sandboxes_ended", "Sandboxes that are gone.", registry=self._registry
        )
        refusals = Counter(
            "headrace_sandboxes_refused",
            "Sandboxes that were asked for and refused, by the code of the error.",
            ["code"],
            registry=self._registry,
        )
        self._refusals = {
            code: refusals.labels(code) for code in (*sorted(_codes(HeadraceError)), OTHER)
        }

    # --- what the engine tells ----------------------------------------------------------------

    def sandbox_created(self, seconds: float, *, from_pool: bool) -> None:
        """Somebody got a sandbox after so long."""
        self._creates.count(seconds, from_pool=from_pool)

    def sandbox_ended(self) -> None:
        """A sandbox that somebody had is gone."""
        self._ends.inc()

    def log_finished(
        self, kind: str, reason: FinishReason, duration: float, output_bytes: int
    ) -> None:
        """An execution, a process or a watch has ended."""
        self._runs.count(kind, reason, duration, output_bytes)

    def refused(self, code: str) -> None:
        """A sandbox was asked for and refused."""
        self._refusals.get(code, self._refusals[OTHER]).inc()

    # --- what the service tells ---------------------------------------------------------------

    def observe_request(self, dialect: str, method: str, status: int, seconds: float) -> None:
        """A request was answered, or its WebSocket closed, after so long.

        ``method`` is "WEBSOCKET" for those; ``status`` is 0 if the client left before an answer.
        """
        self._requests.count(dialect, method, status, seconds)

    def observe_engine(self, engine: Engine) -> None:
        """Ask this engine for its sandboxes whenever the figures are read."""
        self._engine.engine = engine

    def render(self) -> tuple[bytes, str]:
        """Give all figures as Prometheus reads them, and the type of that text."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _Registry(CollectorRegistry):
    """Leaves out when each series began, which doubles their number and tells nobody anything."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [each for each in metric.samples if not _is_beginning(each.name)]
            yield metric


def _is_beginning(name: str) -> bool:
    return name.endswith("_created")


class _EngineGauges(Collector):
    """What is there now."""

    def __init__(self) -> None:
        self.engine: Engine | None = None

    def describe(self) -> Iterable[Metric]:
        """Name the gauges without asking anybody."""
        return self._make({}, 0)

    def collect(self) -> Iterable[Metric]:
        """Count."""
        if self.engine is None:
            return self._make({}, 0)
        counts: dict[SandboxState, int] = {}
        for sandbox in self.engine.list():
            counts[sandbox.state] = counts.get(sandbox.state, 0) + 1
        return self._make(counts, self.engine.count_ready())

    def _make(self, counts: dict[SandboxState, int], ready: int) -> list[Metric]:
        sandboxes = GaugeMetricFamily(
            "headrace_sandboxes", "Sandboxes that somebody has, by state.", labels=["state"]
        )
        for state in _STATES:
            sandboxes.add_metric([state.value], counts.get(state, 0))
        pool = GaugeMetricFamily(
            "headrace_pool_ready_sandboxes", "Sandboxes that wait in the pool.", value=ready
        )
        return [sandboxes, pool]


class _Creates:
    """Sandboxes that were made."""

    def __init__(self, registry: CollectorRegistry) -> None:
        total = Counter(
            "headrace_sandboxes_created",
            "Sandboxes that somebody got, from the pool or made for them.",
            ["from_pool"],
            registry=registry,
        )
        times = Histogram(
            "headrace_sandbox_create_duration_seconds",
            "From the question for a sandbox until it was there.",
            ["from_pool"],
            buckets=_QUICK,
            registry=registry,
        )
        names = {False: "false", True: "true"}
        self._series = {each: (total.labels(n), times.labels(n)) for each, n in names.items()}

    def count(self, seconds: float, *, from_pool: bool) -> None:
        """Count one."""
        total, times = self._series[from_pool]
        total.inc()
        times.observe(seconds)


class _Runs:
    """Executions, processes and watches that ended."""

    def __init__(self, registry: CollectorRegistry) -> None:
        totals = Counter(
            "headrace_runs_finished",
            "Executions, processes and watches that ended, by the reason of their end.",
            ["kind", "reason"],
            registry=registry,
        )
        times = Histogram(
            "headrace_run_duration_seconds",
            "From the start of an execution or a process to its end.",
            ["kind"],
            buckets=_LONG,
            registry=registry,
        )
        output = Counter(
            "headrace_output_bytes",
            "What executions and processes wrote, counted at their end.",
            ["kind"],
            registry=registry,
        )
        self._totals = {(k, r): totals.labels(k, r.value) for k in _KINDS for r in FinishReason}
        self._sizes = {kind: (times.labels(kind), output.labels(kind)) for kind in _KINDS[:2]}

    def count(self, kind: str, reason: FinishReason, duration: float, output_bytes: int) -> None:
        """Count one; a kind that is none is left out."""
        total = self._totals.get((kind, reason))
        if total is not None:
            total.inc()
        sizes = self._sizes.get(kind)
        if sizes is not None:
            sizes[0].observe(duration)
            sizes[1].inc(max(output_bytes, 0))


class _Requests:
    """Requests over HTTP and WebSocket."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._totals = Counter(
            "headrace_http_requests",
            "Requests by dialect, method and class of their status.",
            ["dialect", "method", "status"],
            registry=registry,
        )
        self._times = Histogram(
            "headrace_http_request_duration_seconds",
            "From a request to the end of its answer; streams are as long as what they follow.",
            ["dialect", "method"],
            buckets=_LONG,
            registry=registry,
        )
        self._dialects: set[str] = set()
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count(self, dialect: str, method: str, status: int, seconds: float) -> None:
        """Count one."""
        key = (dialect, method, status // 100)
        series = self._series.get(key)
        if series is None:
            key = (
                self._bound(dialect),
                method if method in _METHODS else OTHER,
                status // 100 if 100 <= status < 600 else 0,
            )
            series = self._series.get(key) or self._begin(*key)
        total, times = series
        total.inc()
        times.observe(seconds)

    def _begin(self, dialect: str, method: str, group: int) -> tuple[Counter, Histogram]:
        status = f"{group}xx" if group else "none"
        total = self._totals.labels(dialect, method, status)
        series = self._series[dialect, method, group] = (total, self._times.labels(dialect, method))
        return series

    def _bound(self, dialect: str) -> str:
        if len(self._dialects) < _MOST_DIALECTS:
            self._dialects.add(dialect)
        return dialect if dialect in self._dialects else OTHER


def _codes(error: type[HeadraceError]) -> set[str]:
    """Give the codes of an error and all kinds of it that the model knows."""
    kinds = (kind for kind in error.__subclasses__() if kind.__module__ == error.__module__)
    return {error.code}.union(*(_codes(kind) for kind in kinds))
