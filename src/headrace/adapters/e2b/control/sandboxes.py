"""The life of a sandbox as its owner directs it: made, prolonged, paused, woken, ended."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from headrace.adapters.base import note
from headrace.adapters.e2b.call import ControlCall
from headrace.adapters.e2b.codec.sandbox import describe_detail, describe_sandbox, split_template
from headrace.adapters.e2b.control.finding import (
    check_alive,
    check_timeout,
    collect_facts,
    find_sandbox,
)
from headrace.adapters.e2b.creations import check_key
from headrace.adapters.e2b.registry import DEFAULT_TIMEOUT
from headrace.adapters.e2b.routing import Route
from headrace.adapters.e2b.schemas.control import (
    Connect,
    NewSandbox,
    Pause,
    Refresh,
    Resume,
    SetTimeout,
    UpdateNetwork,
)
from headrace.engine.sandbox import Sandbox
from headrace.engine.sandbox_state import SandboxState
from headrace.model.errors import (
    InvalidRequestError,
    SandboxNotFoundError,
    TemplateNotFoundError,
    UnavailableError,
    WrongStateError,
)
from headrace.model.specs import SandboxSpec, TimeoutAction

LEGACY_TIMEOUT = 15.0
"""How many seconds a sandbox lives that an old SDK asked for without saying."""

T = TypeVar("T")

_KNOWN_TAGS = ("", "default", "latest")
_Handler = Callable[[ControlCall], Awaitable[None]]


# --- making ---------------------------------------------------------------------------------------


def _create(default_timeout: float) -> _Handler:
    async def create(call: ControlCall) -> None:
        body = await call.exchange.read_body(NewSandbox)
        body.check_supported()
        spec = make_spec(call, body, default_timeout)
        network = None if body.network is None else body.network.to_dict()

        async def make() -> Sandbox:
            sandbox = await call.tenant.create(spec)
            _remember(call, sandbox, network)
            return sandbox

        key = call.exchange.header(b"idempotency-key")
        if key is None:
            sandbox = await make()
        else:
            sandbox = await call.registry.creations.once(call.tenant.tenant, check_key(key), make)
        note(call.exchange.scope, sandbox_id=sandbox.id)
        await call.exchange.answer(describe_sandbox(collect_facts(call, sandbox)), 201)

    return create


def make_spec(call: ControlCall, body: NewSandbox, default_timeout: float) -> SandboxSpec:
    """Give what the engine is asked for; raises InvalidRequestError, TemplateNotFoundError."""
    name, tag = split_template(body.template_id)
    if tag not in _KNOWN_TAGS:
        raise TemplateNotFoundError(f"the template {name!r} has no tag {tag!r}", template=name)
    timeout = check_timeout(call, body.timeout, default_timeout)
    return SandboxSpec(
        name,
        replace(call.tenant.default_limits, lifetime=timeout),
        body.env_vars,
        body.metadata,
        on_timeout=TimeoutAction.PAUSE if body.auto_pause else TimeoutAction.KILL,
        auto_resume=body.auto_resume.enabled,
    )


def _remember(call: ControlCall, sandbox: Sandbox, network: Mapping[str, Any] | None) -> None:
    details = call.registry.details(sandbox)
    details.timeout = sandbox.spec.limits.lifetime
    details.network = network
    details.is_public = (network or {}).get("allowPublicTraffic") is not False


# --- prolonging, pausing, waking ------------------------------------------------------------------


def _connect(default_timeout: float | None) -> _Handler:
    async def connect(call: ControlCall) -> None:
        sandbox = find_sandbox(call)
        body = await call.exchange.read_body(Connect)
        if body.timeout is None and default_timeout is None:
            raise InvalidRequestError("the body: timeout: Field required")
        timeout = check_timeout(call, body.timeout, default_timeout or DEFAULT_TIMEOUT)
        is_resumed = await _resume(call, sandbox, body, timeout)
        if not is_resumed:
            await _in_life(sandbox, sandbox.extend(timeout))
        await _answer_connected(call, sandbox, 201 if is_resumed else 200)

    return connect


async def resume(call: ControlCall) -> None:
    """Answer ``POST /sandboxes/{sandbox_id}/resume``, which SDKs used before there was connect."""
    sandbox = find_sandbox(call)
    body = await call.exchange.read_body(Resume)
    timeout = check_timeout(call, body.timeout, LEGACY_TIMEOUT)
    if not await _resume(call, sandbox, body, timeout):
        raise WrongStateError(f"the sandbox {sandbox.id} is running already")
    if body.auto_pause is not None:
        action = TimeoutAction.PAUSE if body.auto_pause else TimeoutAction.KILL
        sandbox.spec = replace(sandbox.spec, on_timeout=action)
    await _answer_connected(call, sandbox, 201)


async def _resume(call: ControlCall, sandbox: Sandbox, body: Connect, seconds: float) -> bool:
    """Wake a sandbox that is paused; says whether it was."""
    if sandbox.state is SandboxState.PAUSED and not body.memory:
        # Going on from memory in place of it would be something else than what was asked for.
        raise InvalidRequestError("memory: false is not supported yet: a sandbox cannot be booted")
    is_resumed = await _in_life(sandbox, call.registry.resume(sandbox, seconds))
    call.registry.details(sandbox).timeout = seconds
    return is_resumed


async def _answer_connected(call: ControlCall, sandbox: Sandbox, status: int) -> None:
    await call.exchange.answer(describe_sandbox(collect_facts(call, sandbox)), status)


async def set_timeout(call: ControlCall) -> None:
    """Answer ``POST /sandboxes/{sandbox_id}/timeout``; 0 seconds are its end."""
    sandbox = find_sandbox(call)
    body = await call.exchange.read_body(SetTimeout)
    _check_running(sandbox)
    if body.timeout == 0:
        await sandbox.expire()
    else:
        timeout = check_timeout(call, body.timeout, DEFAULT_TIMEOUT)
        await _in_life(sandbox, sandbox.set_timeout(timeout))
        call.registry.details(sandbox).timeout = timeout
    await call.exchange.answer_nothing()


async def refresh(call: ControlCall) -> None:
    """Answer ``POST /sandboxes/{sandbox_id}/refreshes``: it lives at least that long from now."""
    sandbox = find_sandbox(call)
    body = await call.exchange.read_body(Refresh)
    _check_running(sandbox)
    if body.duration:
        await _in_life(sandbox, sandbox.extend(check_timeout(call, body.duration, LEGACY_TIMEOUT)))
    await call.exchange.answer_nothing()


async def pause(call: ControlCall) -> None:
    """Answer ``POST /sandboxes/{sandbox_id}/pause``; everything inside stays, memory included."""
    sandbox = find_sandbox(call)
    await call.exchange.read_body(Pause)
    if sandbox.state is SandboxState.PAUSED:
        raise WrongStateError(f"the sandbox {sandbox.id} is paused already")
    try:
        await _in_life(sandbox, sandbox.pause(stops_lifetime=True))
    except WrongStateError as error:
        if sandbox.state is SandboxState.RUNNING:
            # Told as a conflict it would count as paused.
            raise UnavailableError(error.message) from error
        raise
    await call.exchange.answer_nothing()


async def _in_life(sandbox: Sandbox, work: Awaitable[T]) -> T:
    """Do something with a sandbox that may end meanwhile: then it is not found."""
    try:
        return await work
    except WrongStateError:
        check_alive(sandbox)
        raise


def _check_running(sandbox: Sandbox) -> None:
    """Raise SandboxNotFoundError for one that is paused: until it is woken it has no end."""
    if sandbox.state is not SandboxState.RUNNING:
        raise SandboxNotFoundError(f"the sandbox {sandbox.id} is paused; connect wakes it")


# --- looking, changing, ending --------------------------------------------------------------------


async def show(call: ControlCall) -> None:
    """Answer ``GET /sandboxes/{sandbox_id}``."""
    await call.exchange.answer(describe_detail(collect_facts(call, find_sandbox(call))))


async def update_network(call: ControlCall) -> None:
    """Answer ``PUT /sandboxes/{sandbox_id}/network``: what goes out is replaced, the rest stays."""
    sandbox = find_sandbox(call)
    body = await call.exchange.read_body(UpdateNetwork)
    details = call.registry.details(sandbox)
    kept = {
        name: value
        for name, value in (details.network or {}).items()
        if name in ("allowPublicTraffic", "maskRequestHost", "httpsPorts")
    }
    details.network = {**kept, **body.to_dict()}
    await call.exchange.answer_nothing()


async def kill(call: ControlCall) -> None:
    """Answer ``DELETE /sandboxes/{sandbox_id}``; nothing of it is left then."""
    await find_sandbox(call).kill()
    await call.exchange.answer_nothing()


_ONE = "/sandboxes/{sandbox_id}"

ROUTES: tuple[Route[ControlCall], ...] = (
    Route("POST", "/v2/sandboxes", _create(DEFAULT_TIMEOUT)),
    Route("POST", "/sandboxes", _create(LEGACY_TIMEOUT)),
    Route("GET", _ONE, show),
    Route("DELETE", _ONE, kill),
    Route("POST", "/v2/sandboxes/{sandbox_id}/connect", _connect(DEFAULT_TIMEOUT)),
    Route("POST", f"{_ONE}/connect", _connect(None)),
    Route("POST", f"{_ONE}/resume", resume),
    Route("POST", f"{_ONE}/timeout", set_timeout),
    Route("POST", f"{_ONE}/refreshes", refresh),
    Route("POST", f"{_ONE}/pause", pause),
    Route("PUT", f"{_ONE}/network", update_network),
)
