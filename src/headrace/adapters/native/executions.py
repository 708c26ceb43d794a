"""Executions: started, followed, interrupted, answered."""

import time
from typing import Any

from headrace.adapters.base import note
from headrace.adapters.native import failures, sandboxes
from headrace.adapters.native.codec import describe_end
from headrace.adapters.native.exchange import Exchange
from headrace.adapters.native.forms import JSON, NDJSON, SSE
from headrace.adapters.native.outcome import Outcome
from headrace.adapters.native.routing import Reply, Route
from headrace.adapters.native.runs import Run
from headrace.adapters.native.schemas import Execute, ReadEvents, SendInput
from headrace.adapters.native.shapes import (
    ExecutionEventPage,
    ExecutionEventShape,
    ExecutionList,
    ExecutionOutcome,
    ExecutionShape,
    Nothing,
)
from headrace.adapters.native.streams import (
    answer_events,
    read_position,
)
from headrace.engine.event_log import EventLog
from headrace.engine.execution import Execution
from headrace.model.errors import (
    ContextNotFoundError,
    ExecutionNotFoundError,
    LanguageUnavailableError,
    OutputTooLargeError,
    QuotaError,
    WrongStateError,
)
from headrace.model.events import ExecutionStarted
from headrace.model.ids import sandbox_of
from headrace.model.records import EXECUTION_CODEC


async def execute(exchange: Exchange) -> None:
    """Answer ``POST /v1/sandboxes/{sandbox_id}/executions``."""
    sandbox = sandboxes.find(exchange)
    body = await exchange.read_body(Execute)
    asked_at = time.time()
    execution = await sandbox.execute(body.to_request())
    note(exchange.scope, execution_id=execution.id)
    headers = _name(exchange, execution.id)
    if body.background:
        await exchange.answer(describe(execution.log, execution.context_id), 202, *headers)
        return
    outcome = Outcome(execution.id, exchange.settings.max_outcome)
    run = Run(execution.log, outcome, asked_at)
    is_complete = await run.answer(exchange, headers)
    if not is_complete and body.on_disconnect == "interrupt":
        await execution.interrupt()


async def list_some(exchange: Exchange) -> None:
    """Answer ``GET /v1/sandboxes/{sandbox_id}/executions``."""
    answer: ExecutionList = {
        "executions": [
            describe(execution.log, execution.context_id)
            for context in sandboxes.find(exchange).contexts
            for execution in context.executions
        ]
    }
    await exchange.answer(answer)


async def show(exchange: Exchange) -> None:
    """Answer ``GET /v1/executions/{execution_id}``."""
    log = _find_log(exchange)
    context_id = None
    if log.last_seq:
        first = (await log.next_batch(0))[0]
        context_id = first.context_id if isinstance(first, ExecutionStarted) else None
    await exchange.answer(describe(log, context_id))


async def follow(exchange: Exchange) -> None:
    """Answer ``GET /v1/executions/{execution_id}/events``."""
    query = exchange.read_query(ReadEvents)
    log = _find_log(exchange)
    await answer_events(exchange, log, read_position(exchange, query.after))


async def interrupt(exchange: Exchange) -> None:
    """Answer ``POST /v1/executions/{execution_id}/interrupt``."""
    if not _find_log(exchange).is_finished:
        await _find(exchange).interrupt()
    await exchange.answer({}, 202)


async def send_input(exchange: Exchange) -> None:
    """Answer ``POST /v1/executions/{execution_id}/input``."""
    log = _find_log(exchange)
    body = await exchange.read_body(SendInput)
    if log.is_finished:
        raise WrongStateError(f"the execution {log.log_id} has ended", id=log.log_id)
    await _find(exchange).send_input(body.text)
    await exchange.answer_nothing()


def _find(exchange: Exchange) -> Execution:
    execution_id = exchange.path["execution_id"]
    return exchange.tenant.find_owner(execution_id).execution(execution_id)


def _find_log(exchange: Exchange) -> EventLog[Any]:
    execution_id = exchange.path["execution_id"]
    log = exchange.tenant.find_log(execution_id)
    if log.codec is not EXECUTION_CODEC:
        raise ExecutionNotFoundError(f"there is no log of {execution_id!r}", id=execution_id)
    note(exchange.scope, execution_id=execution_id)
    return log


def describe(log: EventLog[Any], context_id: str | None) -> ExecutionShape:
    """Give an execution as clients see it."""
    shape: ExecutionShape = {
        "id": log.log_id,
        "sandbox_id": sandbox_of(log.log_id) or "",
        "state": "finished" if log.is_finished else "running" if log.last_seq else "queued",
        "context_id": context_id if log.last_seq else None,
        "last_seq": log.last_seq,
    }
    if log.terminal is not None:
        shape["finished"] = describe_end(log.terminal)  # type: ignore[typeddict-item]  # its fields
    return shape


def _name(exchange: Exchange, execution_id: str) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"location", f"{exchange.origin}/v1/executions/{execution_id}".encode()),
        (b"headrace-execution-id", execution_id.encode()),
    )


_EXECUTION = "/v1/executions/{execution_id}"
_NAMED = ("Location", "Headrace-Execution-Id", "Server-Timing")

ROUTES = (
    Route(
        "POST",
        "/v1/sandboxes/{sandbox_id}/executions",
        "execute",
        "Run code",
        execute,
        {
            200: Reply(
                "Its events as they come, or the outcome.",
                {SSE: ExecutionEventShape, JSON: ExecutionOutcome, NDJSON: ExecutionEventShape},
                headers=_NAMED,
            ),
            202: Reply("The execution, which runs on.", {JSON: ExecutionShape}, headers=_NAMED),
        },
        failures=(
            *failures.IN_SANDBOX,
            ContextNotFoundError,
            LanguageUnavailableError,
            OutputTooLargeError,
            QuotaError,
        ),
        body=Execute,
    ),
    Route(
        "GET",
        "/v1/sandboxes/{sandbox_id}/executions",
        "listExecutions",
        "List the executions that run, wait, or ended lately",
        list_some,
        {200: Reply("The executions.", {JSON: ExecutionList})},
        failures=failures.IN_SANDBOX,
    ),
    Route(
        "GET",
        _EXECUTION,
        "getExecution",
        "Show an execution",
        show,
        {200: Reply("The execution.", {JSON: ExecutionShape})},
        failures=failures.IN_LOG,
    ),
    Route(
        "GET",
        f"{_EXECUTION}/events",
        "followExecution",
        "Follow the events of an execution",
        follow,
        {
            200: Reply(
                "The events behind that number; as JSON those that are there now.",
                {SSE: ExecutionEventShape, JSON: ExecutionEventPage, NDJSON: ExecutionEventShape},
            ),
            204: Reply("It has ended and there is nothing behind that number."),
        },
        failures=failures.IN_LOG,
        query=ReadEvents,
        request_headers=("Last-Event-ID",),
    ),
    Route(
        "POST",
        f"{_EXECUTION}/interrupt",
        "interruptExecution",
        "Ask the code to stop",
        interrupt,
        {202: Reply("It was asked; its end says how it took that.", {JSON: Nothing})},
        failures=(*failures.IN_LOG, *failures.IN_SANDBOX),
    ),
    Route(
        "POST",
        f"{_EXECUTION}/input",
        "sendInput",
        "Answer code that waits for input",
        send_input,
        {204: Reply("It was handed over.")},
        failures=(*failures.IN_LOG, *failures.IN_SANDBOX),
        body=SendInput,
    ),
)
