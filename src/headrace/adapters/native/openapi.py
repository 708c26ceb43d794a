"""The OpenAPI 3.1 document, made from the table of routes and the shapes of bodies."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from pydantic import TypeAdapter

from headrace.adapters.native.errors import (
    BodyTimeoutError,
    NotAcceptableError,
    UnsupportedMediaTypeError,
    status_of_class,
)
from headrace.adapters.native.forms import BYTES, JSON, SSE
from headrace.adapters.native.routing import Reply, Route
from headrace.adapters.native.shapes import ErrorBody
from headrace.model import errors
from headrace.model.errors import HeadraceError

Json: TypeAlias = dict[str, Any]

_REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"\{(\w+)\}")
_ALWAYS: tuple[type[HeadraceError], ...] = (
    errors.InvalidRequestError,
    errors.UnauthenticatedError,
    errors.UnavailableError,
    HeadraceError,
)
_WITH_BODY = (errors.LimitExceededError, BodyTimeoutError)
_ABOUT = "Runs untrusted code in isolated sandboxes and tells, event by event, what it does."


def make_document(routes: Iterable[Route]) -> Json:
    """Give the document that describes these routes."""
    routes = list(routes)
    schemas, definitions = _make_schemas(routes)
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _describe(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headrace", "version": "1", "description": _ABOUT},
        "security": [{"bearer": []}, {"header": []}],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def failures_of(route: Route) -> dict[int, list[type[HeadraceError]]]:
    """Give every error that a route may answer, by status."""
    found: list[type[HeadraceError]] = [*_ALWAYS, *route.failures]
    if route.body is not None or route.raw_body:
        found += _WITH_BODY
    if route.body is not None:
        found.append(UnsupportedMediaTypeError)
    if route.is_negotiated:
        found.append(NotAcceptableError)
    by_status: dict[int, list[type[HeadraceError]]] = {}
    for kind in dict.fromkeys(found):
        by_status.setdefault(status_of_class(kind), []).append(kind)
    return dict(sorted(by_status.items()))


def _make_schemas(routes: list[Route]) -> tuple[Mapping[Any, Json], Json]:
    shapes: list[Any] = [ErrorBody]
    for route in routes:
        shapes += [shape for shape in (route.body, route.query) if shape is not None]
        shapes += [shape for reply in route.replies.values() for shape in reply.content.values()]
    shapes = [shape for index, shape in enumerate(shapes) if shape not in shapes[:index]]
    found, rest = TypeAdapter.json_schemas(
        [(index, "validation", TypeAdapter(shape)) for index, shape in enumerate(shapes)],
        ref_template=_REF,
    )
    by_shape = {shapes[index]: schema for (index, _mode), schema in found.items()}
    return by_shape, rest.get("$defs", {})


def _describe(route: Route, schemas: Mapping[Any, Json]) -> Json:
    operation: Json = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": [*_parameters(route, schemas)],
        "responses": _responses(route, schemas),
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.body_is_optional,
            "content": {JSON: {"schema": schemas[route.body]}},
        }
    elif route.raw_body:
        operation["requestBody"] = {"content": {BYTES: {"schema": _BYTES}}}
    return operation


_BYTES: Json = {"type": "string", "format": "binary"}


def _parameters(route: Route, schemas: Mapping[Any, Json]) -> Iterable[Json]:
    for name in _PARAMETER.findall(route.path):
        schema = {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    if route.query is not None:
        shape = route.query.model_json_schema(ref_template=_REF)
        for name, schema in shape["properties"].items():
            yield {
                "name": name,
                "in": "query",
                "required": name in shape.get("required", ()),
                "schema": _without_null(schema),
            }
    for name in route.request_headers:
        yield {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}


def _without_null(schema: Json) -> Json:
    """Give the schema of a parameter: one that is null is left out."""
    if "anyOf" not in schema:
        return schema
    (kind,) = [each for each in schema["anyOf"] if each != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return {**kind, **rest}


def _responses(route: Route, schemas: Mapping[Any, Json]) -> Json:
    responses: Json = {}
    for status, reply in route.replies.items():
        responses[str(status)] = _response(reply, schemas)
    for status, kinds in failures_of(route).items():
        codes = ", ".join(f"`{kind.code}`" for kind in kinds)
        content = {JSON: {"schema": schemas[ErrorBody]}}
        responses[str(status)] = {"description": codes, "content": content}
    return responses


def _response(reply: Reply, schemas: Mapping[Any, Json]) -> Json:
    response: Json = {"description": reply.description}
    if reply.content:
        response["content"] = {
            kind: _media(kind, schemas[shape]) for kind, shape in reply.content.items()
        }
    if reply.headers:
        response["headers"] = {name: {"schema": {"type": "string"}} for name in reply.headers}
    return response


def _media(kind: str, schema: Json) -> Json:
    if kind == JSON:
        return {"schema": schema}
    if kind == BYTES:
        return {"schema": _BYTES}
    # Of a sequence of values OpenAPI 3.1 has the schema of one.
    if kind == SSE:
        data = {"type": "string", "contentMediaType": JSON, "contentSchema": schema}
        properties = {"id": {"type": "string"}, "event": {"type": "string"}, "data": data}
        required = ["event", "data"]
        return {"schema": {"type": "object", "properties": properties, "required": required}}
    return {"schema": schema, "x-sequence": "one value per line"}
