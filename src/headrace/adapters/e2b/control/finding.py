"""Which sandbox a request is about, and what is told of one."""

from headrace.adapters.base import note
from headrace.adapters.e2b.access import Purpose
from headrace.adapters.e2b.call import ControlCall
from headrace.adapters.e2b.codec.sandbox import Facts, choose_domain
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import InvalidRequestError, SandboxNotFoundError
from headrace.model.ids import is_sandbox_id


def find_sandbox(call: ControlCall) -> Sandbox:
    """Give the living sandbox that the path names; raises SandboxNotFoundError."""
    sandbox_id = call.path["sandbox_id"]
    if not is_sandbox_id(sandbox_id):
        raise SandboxNotFoundError(f"there is no sandbox {sandbox_id[:100]!r}")
    sandbox = call.tenant.find(sandbox_id)
    check_alive(sandbox)
    note(call.exchange.scope, sandbox_id=sandbox.id)
    return sandbox


def check_alive(sandbox: Sandbox) -> None:
    """Raise SandboxNotFoundError for one that is on its way out."""
    if not sandbox.is_alive:
        raise SandboxNotFoundError(f"the sandbox {sandbox.id!r} is {sandbox.state}")


def collect_facts(call: ControlCall, sandbox: Sandbox) -> Facts:
    """Give what is told of a sandbox to its owner."""
    tokens = call.registry.tokens
    exchange = call.exchange
    return Facts(
        sandbox_id=sandbox.id,
        spec=sandbox.spec,
        state=sandbox.state.value,
        started_at=sandbox.created_at,
        ends_at=sandbox.deadline,
        agent_token=tokens.make(Purpose.AGENT, sandbox.id),
        traffic_token=tokens.make(Purpose.TRAFFIC, sandbox.id),
        domain=choose_domain(exchange.settings.domain, exchange.origin),
        network=call.registry.details(sandbox).network,
    )


def check_timeout(call: ControlCall, seconds: float | None, default: float) -> float:
    """Give how long a sandbox shall live; raises InvalidRequestError that names the bounds.

    ``default`` is for who does not say, within the bounds.
    """
    most = call.tenant.max_limits.lifetime
    if seconds is None:
        return min(default, most)
    if not 1 <= seconds <= most:
        raise InvalidRequestError(
            f"timeout must be from 1 to {most:.15g} seconds here, got {seconds:.15g}", maximum=most
        )
    return seconds
