"""Bodies and queries of the control plane. Unknown fields are passed over, as the vendor does."""

import ipaddress
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from headrace.model.errors import InvalidRequestError
from headrace.model.life import Level

MAX_NETWORK = 64 * 1024
"""How many bytes the network object of a sandbox may have; it is kept as long as the sandbox."""

MAX_PAGE = 1000
_LAST_PORT = 65535
_AGENT_PORT = 49983

Texts = Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=1000)]
Map = Annotated[dict[str, str], Field(max_length=10_000)]


class Body(BaseModel):
    """The base of all bodies: nothing is guessed; null is the same as nothing."""

    model_config = ConfigDict(
        extra="ignore", strict=True, allow_inf_nan=False, frozen=True, alias_generator=to_camel
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_null(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: each for name, each in value.items() if each is not None}


class Query(BaseModel):
    """The base of all queries, in which everything is text at first."""

    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel)


# --- networks -------------------------------------------------------------------------------------


class EgressProxy(Body):
    """A proxy for what goes out. Its password is never kept: nothing goes out."""

    address: str = Field(min_length=1, max_length=512)
    username: str | None = Field(None, max_length=255)
    password: str | None = Field(None, max_length=255, exclude=True)
    tls: dict[str, Any] | None = None


class Transform(Body):
    """What becomes of a request that goes out."""

    headers: Map | None = None


class Rule(Body):
    """What becomes of requests to one host."""

    transform: Transform | None = None


class NetworkUpdate(Body):
    """What may go out of a sandbox."""

    allow_out: Texts | None = None
    deny_out: Texts | None = None
    dns_servers: Texts | None = None
    egress_proxy: EgressProxy | None = None
    rules: Annotated[dict[str, list[Rule]], Field(max_length=1000)] | None = None

    @field_validator("deny_out")
    @classmethod
    def _check_networks(cls, value: list[str] | None) -> list[str] | None:
        for each in value or ():
            ipaddress.ip_network(each, strict=False)
        return value

    @field_validator("dns_servers")
    @classmethod
    def _check_addresses(cls, value: list[str] | None) -> list[str] | None:
        for each in value or ():
            ipaddress.IPv4Address(each)
        return value

    def to_dict(self) -> dict[str, Any]:
        """Give it as it is kept and told; raises InvalidRequestError if that is too much."""
        given = self.model_dump(
            by_alias=True, exclude_unset=True, exclude={"allow_internet_access"}
        )
        size = len(json.dumps(given))
        if size > MAX_NETWORK:
            raise InvalidRequestError(f"network has {size} bytes; at most {MAX_NETWORK} are kept")
        return given


class UpdateNetwork(NetworkUpdate):
    """Replaces what may go out of a sandbox."""

    allow_internet_access: bool | None = Field(None, alias="allow_internet_access")


class NetworkConfig(NetworkUpdate):
    """What may go out of a new sandbox, and what may come in."""

    allow_public_traffic: bool | None = None
    mask_request_host: str | None = Field(None, max_length=512, pattern=r"^[!-~]*$")
    https_ports: list[int] | None = Field(None, max_length=100)

    @field_validator("https_ports")
    @classmethod
    def _check_ports(cls, value: list[int] | None) -> list[int] | None:
        for each in value or ():
            if not 1 <= each <= _LAST_PORT or each == _AGENT_PORT:
                raise ValueError(f"{each} cannot be such a port")
        return value


# --- sandboxes ------------------------------------------------------------------------------------


class AutoResume(Body):
    """Whether traffic wakes a paused sandbox."""

    enabled: bool = False


class NewSandbox(Body):
    """A sandbox that is wanted. ``timeout`` is seconds."""

    template_id: str = Field(alias="templateID", min_length=1, max_length=256)
    timeout: float | None = None
    metadata: Map = {}
    env_vars: Map = {}
    auto_pause: bool = False
    auto_pause_memory: bool = True
    auto_resume: AutoResume = AutoResume()
    allow_internet_access: bool | None = Field(None, alias="allow_internet_access")
    network: NetworkConfig | None = None
    mcp: dict[str, Any] = {}
    iam: dict[str, Any] = {}
    volume_mounts: list[dict[str, Any]] = []

    def check_supported(self) -> None:
        """Raise InvalidRequestError if a sandbox would be less than what was asked for."""
        if self.mcp:
            # Clients tell by these words that the sandbox itself could have been made.
            raise InvalidRequestError("Failed to start MCP gateway: mcp is not supported yet")
        asked = {
            "iam": self.iam.get("tokens", self.iam),
            "volumeMounts": self.volume_mounts,
        }
        for name, value in asked.items():
            if value:
                raise InvalidRequestError(f"{name} is not supported yet")


class Connect(Body):
    """How long a sandbox shall live at least, and whether it goes on where it stood."""

    timeout: float | None = None
    memory: bool = True


class Resume(Connect):
    """Like `Connect`; also what becomes of the sandbox at its end."""

    auto_pause: bool | None = None


class SetTimeout(Body):
    """When a sandbox shall end."""

    timeout: float


class Refresh(Body):
    """How many seconds a sandbox shall live at least."""

    duration: float = 15


class Pause(Body):
    """How a sandbox is paused. Its memory is always kept; a pause always waits for the agent."""

    memory: bool = True
    require_healthy_guest: bool = False


# --- queries --------------------------------------------------------------------------------------


class ListSandboxes(Query):
    """Which sandboxes, and which page of them."""

    metadata: str | None = Field(None, max_length=64 * 1024)
    state: str = Field("running,paused", max_length=100)
    template: str | None = Field(None, max_length=256)
    started_after: str | None = Field(None, max_length=64)
    order: Literal["asc", "desc"] = "desc"
    limit: int = Field(100, ge=1, le=MAX_PAGE)
    next_token: str | None = Field(None, max_length=256)

    @property
    def states(self) -> frozenset[str]:
        """The states that are wanted; raises InvalidRequestError for unknown ones."""
        found = frozenset(self.state.split(","))
        unknown = sorted(found - {"running", "paused"})
        if unknown:
            raise InvalidRequestError(f"state must be running or paused, got {unknown[0]!r}")
        return found

    @property
    def started_after_time(self) -> float | None:
        """The time in Unix seconds; raises InvalidRequestError."""
        if self.started_after is None:
            return None
        try:
            found = datetime.fromisoformat(self.started_after)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError) as error:
            raise InvalidRequestError(
                f"startedAfter must be a time like 2026-01-31T12:00:00Z, got {self.started_after!r}"
            ) from error


class ReadMetrics(Query):
    """Of which time, in Unix seconds."""

    start: int | None = Field(None, ge=0, le=10**12)
    end: int | None = Field(None, ge=0, le=10**12)

    @model_validator(mode="after")
    def _check_order(self) -> "ReadMetrics":
        if self.start is not None and self.end is not None and self.start > self.end:
            raise ValueError("start is behind end")
        return self


class ReadLogs(Query):
    """Which entries: ``cursor`` and ``start`` are Unix milliseconds."""

    start: int | None = Field(None, ge=0)
    cursor: int | None = Field(None, ge=0)
    limit: int = Field(1000, ge=0, le=1000)
    direction: Literal["forward", "backward"] = "forward"
    level: Level = Level.DEBUG
    search: str = Field("", max_length=256)


def first_values(query: Mapping[str, list[str]]) -> dict[str, Any]:
    """Give the first value of each name of a query; an empty one is the same as none."""
    return {name: values[0] for name, values in query.items() if values[0]}
