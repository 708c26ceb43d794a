"""The document describes what the routes do."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from headrace.adapters.native.app import ROUTES
from headrace.adapters.native.codec import Event, describe
from headrace.adapters.native.openapi import failures_of, make_document
from headrace.adapters.native.routing import Route
from headrace.adapters.native.shapes import (
    ExecutionEventShape,
    ProcessEventShape,
    WatchEventShape,
)
from tests.unit.adapters.native.test_codec import EVENTS

DOCUMENT: Any = json.loads(json.dumps(make_document(ROUTES)))


def references(value: object) -> list[str]:
    if isinstance(value, dict):
        found = [value["$ref"]] if "$ref" in value else []
        return found + [ref for each in value.values() for ref in references(each)]
    if isinstance(value, list):
        return [ref for each in value for ref in references(each)]
    return []


def test_every_route_is_there_under_its_own_name() -> None:
    described = [
        (method.upper(), path, operation["operationId"])
        for path, operations in DOCUMENT["paths"].items()
        for method, operation in operations.items()
    ]

    assert sorted(described) == sorted((route.method, route.path, route.name) for route in ROUTES)
    assert len({name for _, _, name in described}) == len(ROUTES)


def test_every_reference_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]

    found = set(references(DOCUMENT))

    assert found
    assert {ref.removeprefix("#/components/schemas/") for ref in found} <= schemas.keys()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_operation_tells_of_its_failures(route: Route) -> None:
    operation = DOCUMENT["paths"][route.path][route.method.lower()]

    statuses = {int(status) for status in operation["responses"]}

    assert statuses == set(route.replies) | set(failures_of(route))
    assert {400, 401, 500, 503} <= statuses
    assert (404 in statuses) or "{" not in route.path
    assert {408, 413} <= statuses or not (route.body or route.raw_body)


def test_a_query_is_described_without_null() -> None:
    (parameter,) = [
        each
        for each in DOCUMENT["paths"]["/v1/executions/{execution_id}/events"]["get"]["parameters"]
        if each["name"] == "after"
    ]

    assert parameter["in"] == "query"
    assert parameter["required"] is False
    assert parameter["schema"]["type"] == "integer"


def test_nothing_unknown_is_accepted_in_bodies() -> None:
    names = {route.body.__name__ for route in ROUTES if route.body is not None}
    schemas = DOCUMENT["components"]["schemas"]

    assert all(schemas[name]["additionalProperties"] is False for name in names)


@pytest.mark.parametrize("event", [event for event, _ in EVENTS], ids=lambda e: type(e).__name__)
def test_every_event_fits_a_shape(event: Event) -> None:
    shapes: TypeAdapter[object] = TypeAdapter(
        ExecutionEventShape | ProcessEventShape | WatchEventShape
    )

    told = json.loads(json.dumps(describe(event)))

    assert shapes.validate_python(told) == told
