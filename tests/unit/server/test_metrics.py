"""Figures: each call moves what it should, no client can make labels, all are documented."""

import re
from collections.abc import Iterator
from pathlib import Path

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from headrace.engine.meter import Meter
from headrace.model.events import FinishReason
from headrace.model.specs import SandboxSpec
from headrace.server.metrics import Metrics
from tests.support.fakes import open_fake_engine

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"


@pytest.fixture
def metrics() -> Metrics:
    """Figures that start at nothing."""
    return Metrics()


def read(metrics: Metrics, name: str, **labels: str) -> float:
    """Give the value of one series; fails unless there is exactly one."""
    (value,) = [
        float(sample.value)
        for sample in samples(metrics)
        if sample.name == name and sample.labels == labels
    ]
    return value


def samples(metrics: Metrics) -> Iterator[Sample]:
    """Give all series as Prometheus would read them."""
    for family in text_string_to_metric_families(metrics.render()[0].decode()):
        yield from family.samples


def test_it_is_a_meter_of_the_engine(metrics: Metrics) -> None:
    meter: Meter = metrics
    meter.sandbox_ended()

    assert read(metrics, "headrace_sandboxes_ended_total") == 1


def test_the_answer_says_what_it_is(metrics: Metrics) -> None:
    assert metrics.render()[1].startswith("text/plain; version=")


def test_a_sandbox_that_was_made_is_counted_with_its_time(metrics: Metrics) -> None:
    metrics.sandbox_created(0.003, from_pool=True)
    metrics.sandbox_created(0.2, from_pool=False)

    assert read(metrics, "headrace_sandboxes_created_total", from_pool="true") == 1
    assert read(metrics, "headrace_sandboxes_created_total", from_pool="false") == 1
    name = "headrace_sandbox_create_duration_seconds"
    assert read(metrics, f"{name}_sum", from_pool="true") == 0.003
    assert read(metrics, f"{name}_bucket", from_pool="true", le="0.0025") == 0
    assert read(metrics, f"{name}_bucket", from_pool="true", le="0.005") == 1


@pytest.mark.parametrize("kind", ["execution", "process", "watch"])
@pytest.mark.parametrize("reason", FinishReason)
def test_an_end_is_counted_under_its_reason(
    metrics: Metrics, kind: str, reason: FinishReason
) -> None:
    metrics.log_finished(kind, reason, 1.5, 10)

    counted = {
        (sample.labels["kind"], sample.labels["reason"])
        for sample in samples(metrics)
        if sample.name == "headrace_runs_finished_total" and sample.value == 1
    }
    assert counted == {(kind, reason.value)}


def test_output_is_summed_by_kind(metrics: Metrics) -> None:
    metrics.log_finished("execution", FinishReason.OK, 1.0, 100)
    metrics.log_finished("execution", FinishReason.OOM, 1.0, 11)
    metrics.log_finished("process", FinishReason.OK, 1.0, 5)

    assert read(metrics, "headrace_output_bytes_total", kind="execution") == 111
    assert read(metrics, "headrace_output_bytes_total", kind="process") == 5
    assert read(metrics, "headrace_run_duration_seconds_count", kind="execution") == 2


def test_a_refusal_is_counted_under_its_code(metrics: Metrics) -> None:
    metrics.refused("quota")
    metrics.refused("no such code")

    assert read(metrics, "headrace_sandboxes_refused_total", code="quota") == 1
    assert read(metrics, "headrace_sandboxes_refused_total", code="other") == 1


@pytest.mark.parametrize(
    ("status", "group"), [(200, "2xx"), (404, "4xx"), (599, "5xx"), (0, "none"), (700, "none")]
)
def test_a_request_is_counted_under_the_class_of_its_status(
    metrics: Metrics, status: int, group: str
) -> None:
    metrics.observe_request("native", "GET", status, 0.02)

    labels = {"dialect": "native", "method": "GET"}
    assert read(metrics, "headrace_http_requests_total", **labels, status=group) == 1
    assert read(metrics, "headrace_http_request_duration_seconds_sum", **labels) == 0.02


def test_clients_cannot_make_labels(metrics: Metrics) -> None:
    for number in range(1000):
        metrics.observe_request(f"dialect{number}", f"METHOD{number}", number, 0.1)
        metrics.refused(f"code{number}")
        metrics.log_finished(f"kind{number}", FinishReason.OK, 1.0, 1)

    made = list(samples(metrics))
    assert len([s for s in made if s.name == "headrace_http_requests_total"]) < 300
    assert {s.labels["method"] for s in made if "method" in s.labels} == {"other"}
    assert len({s.labels["dialect"] for s in made if "dialect" in s.labels}) == 33
    assert not [s for s in made if "kind7" in s.labels.values() or "code7" in s.labels.values()]


def test_bad_figures_do_not_raise(metrics: Metrics) -> None:
    metrics.log_finished("execution", FinishReason.OK, float("nan"), -5)
    metrics.observe_request("native", "GET", -1, -1.0)

    assert read(metrics, "headrace_output_bytes_total", kind="execution") == 0


async def test_what_there_is_now_is_asked_of_the_engine(metrics: Metrics, tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path, meter=metrics) as (engine, _launcher):
        metrics.observe_engine(engine)
        first = await engine.create(SandboxSpec())
        await engine.create(SandboxSpec())
        await first.pause()

        assert read(metrics, "headrace_sandboxes", state="running") == 1
        assert read(metrics, "headrace_sandboxes", state="paused") == 1
        assert read(metrics, "headrace_pool_ready_sandboxes") == 0

    assert read(metrics, "headrace_sandboxes", state="running") == 0
    assert read(metrics, "headrace_sandboxes_ended_total") == 2


def test_series_are_there_before_anything_happened(metrics: Metrics) -> None:
    assert read(metrics, "headrace_runs_finished_total", kind="execution", reason="oom") == 0
    assert read(metrics, "headrace_sandboxes_refused_total", code="quota") == 0
    assert read(metrics, "headrace_sandboxes", state="running") == 0


def test_two_services_in_one_process_do_not_share_figures(metrics: Metrics) -> None:
    Metrics().sandbox_ended()

    assert read(metrics, "headrace_sandboxes_ended_total") == 0
    assert b"headrace" not in prometheus_client.generate_latest()


def test_no_series_tells_when_it_began(metrics: Metrics) -> None:
    assert not [sample for sample in samples(metrics) if sample.name.endswith("_created")]


def test_the_document_lists_every_metric_with_its_type_and_labels(metrics: Metrics) -> None:
    metrics.observe_request("native", "GET", 200, 0.1)
    rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \| (.*?) \|", DOCUMENT.read_text(), re.MULTILINE)
    documented = {
        name: (kind, frozenset(re.findall(r"`([a-z_]+)`(?=:|,|;| \||$)", labels)))
        for name, kind, labels in rows
    }

    real = {}
    for family in text_string_to_metric_families(metrics.render()[0].decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = frozenset().union(*(sample.labels for sample in family.samples)) - {"le"}
        real[name] = (family.type, labels)
    assert {name: kind for name, (kind, _labels) in documented.items()} == {
        name: kind for name, (kind, _labels) in real.items()
    }
    for name, (_kind, labels) in real.items():
        assert labels <= documented[name][1], name
