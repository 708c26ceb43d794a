"""All settings of the service: names, types, defaults, units and one line on each.

Nothing is read here; `headrace.server.configuration` does that, once at the start.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from headrace.engine.config import GENEROUS, EngineConfig
from headrace.model.specs import DEFAULT_TEMPLATE, MIB, Limits

PREFIX = "HEADRACE_"
DELIMITER = "__"
MAIN_TOPIC = "server"
"""The topic that may be left out of names: HEADRACE_PORT is HEADRACE_SERVER__PORT."""

TEMPLATE_ALIASES: Mapping[str, str] = {
    "base": DEFAULT_TEMPLATE,
    "code-interpreter-v1": DEFAULT_TEMPLATE,
    "mcp-gateway": DEFAULT_TEMPLATE,
}
"""The names by which SDKs of other vendors ask for the template, without their users knowing."""

_DEFAULTS = Limits()


def _split(value: object) -> object:
    """Read a list from text, as the environment and the command line have it."""
    if isinstance(value, str):
        return [word for word in (word.strip() for word in value.split(",")) if word]
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_split)]


def _setting(default: Any, description: str, unit: str = "", **bounds: Any) -> Any:  # noqa: ANN401 - a field of any type
    return Field(default, description=description, json_schema_extra={"unit": unit}, **bounds)


class Topic(BaseModel):
    """Settings that belong together."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ServerTopic(Topic):
    """Where the service listens, how it is reached, and whom it lets in."""

    host: str = _setting("127.0.0.1", "The address to listen on.")
    port: int = _setting(8000, "The TCP port; 0 takes a free one.", ge=0, le=65535)
    tcp: bool = _setting(True, "Listen on TCP at all; without it only on the socket.")
    socket: Path | None = _setting(None, "A unix socket to listen on, too.")
    tls_cert: Path | None = _setting(None, "The certificate chain, as PEM; with it TCP is HTTPS.")
    tls_key: Path | None = _setting(None, "The private key of the certificate, as PEM.")
    public_url: str | None = _setting(
        None, "The URL by which clients know the service; used in every URL that it hands out."
    )
    host_names: Names = _setting(
        (), "Further host names that requests may name; `*.example.com` covers all below it."
    )
    trusted_proxies: Names = _setting(
        (), "Addresses or networks whose `X-Forwarded-*` are believed; `unix` for the socket."
    )
    cors_origins: Names = _setting((), "Origins of web pages that may use the native API, or `*`.")
    api_keys: Secrets = _setting(
        (), "API keys, each `key` or `tenant:key`; without any, one is made."
    )
    max_body: ByteSize = _setting(20 * MIB, "The most of a JSON body.", "bytes", ge=1024)
    max_upload: ByteSize | None = _setting(
        None, "The most of one file that is sent; without it the sandbox's disk decides.", "bytes"
    )
    max_outcome: ByteSize = _setting(
        64 * MIB, "The most of a whole outcome in one JSON answer.", "bytes", ge=1024
    )
    max_header: ByteSize = _setting(
        64 * 1024, "The most of a request's URL and header together.", "bytes", ge=1024
    )
    max_connections: int = _setting(
        4096, "Open connections per listener; further ones are refused with 503.", ge=1
    )
    header_timeout: float = _setting(
        30.0, "How long a client may take to send the header of a request.", "seconds", gt=0
    )
    keep_alive: float = _setting(
        75.0, "How long an idle connection is kept open.", "seconds", gt=0, le=3600
    )
    heartbeat: float = _setting(
        15.0, "After so much silence a stream carries a sign of life.", "seconds", gt=0, le=3600
    )
    graceful_shutdown: float = _setting(
        30.0, "How long open answers may take to end when the service stops.", "seconds", ge=0
    )


class EngineTopic(Topic):
    """How sandboxes are made and what is kept of them."""

    mode: Literal["auto", "root", "rootless"] = _setting(
        "auto", "`root`, `rootless`, or `auto`: root if started by root."
    )
    require: Names = _setting((), "Protections without which the service refuses to start.")
    pool_size: int = _setting(4, "Sandboxes that wait ready; 0 for none.", ge=0, le=1000)
    max_sandboxes: int = _setting(500, "Sandboxes at the same time.", ge=1)
    max_tenant_sandboxes: int | None = _setting(
        None, "Sandboxes of one tenant at the same time; without it `max_sandboxes` decides.", ge=1
    )
    max_creating: int = _setting(16, "Sandboxes that are made at the same moment.", ge=1)
    log_retention: float = _setting(
        3600.0, "How long the events of what ended can still be read.", "seconds", gt=0
    )
    log_bytes: ByteSize = _setting(
        4096 * MIB, "What the events of all that ended may take on disk.", "bytes", ge=0
    )
    interrupt_grace: float = _setting(
        2.0, "How long code may take to answer an interrupt.", "seconds", gt=0
    )
    state_dir: Path | None = _setting(
        None, "The directory for what must last; the default depends on the mode."
    )
    runtime_dir: Path | None = _setting(
        None, "The directory for what is gone at the end; should be in memory."
    )
    python_prefix: Path | None = _setting(
        None, "The Python that sandboxes have; without it the one of the service."
    )


class LimitsTopic(Topic):
    """The bounds of a sandbox that asks for none, and the most that may be asked for."""

    memory: ByteSize = _setting(_DEFAULTS.memory, "Memory of the processes.", "bytes")
    disk: ByteSize = _setting(_DEFAULTS.disk, "What files may take, on top of memory.", "bytes")
    inodes: int = _setting(_DEFAULTS.inodes, "Files and directories.")
    processes: int = _setting(_DEFAULTS.processes, "Processes and threads.")
    open_files: int = _setting(_DEFAULTS.open_files, "Open files of one process.")
    cpus: float = _setting(_DEFAULTS.cpus, "CPU time.", "cores")
    lifetime: float = _setting(_DEFAULTS.lifetime, "How long a sandbox lives.", "seconds")
    output: ByteSize = _setting(_DEFAULTS.output, "Output of one execution or process.", "bytes")
    max_memory: ByteSize = _setting(GENEROUS.memory, "The most memory to ask for.", "bytes")
    max_disk: ByteSize = _setting(GENEROUS.disk, "The most disk to ask for.", "bytes")
    max_inodes: int = _setting(GENEROUS.inodes, "The most files to ask for.")
    max_processes: int = _setting(GENEROUS.processes, "The most processes to ask for.")
    max_open_files: int = _setting(GENEROUS.open_files, "The most open files to ask for.")
    max_cpus: float = _setting(GENEROUS.cpus, "The most CPU time to ask for.", "cores")
    max_lifetime: float = _setting(GENEROUS.lifetime, "The longest life to ask for.", "seconds")
    max_output: ByteSize = _setting(GENEROUS.output, "The most output to ask for.", "bytes")


class LogsTopic(Topic):
    """What the service writes about itself, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "The least important lines to write: `debug`, `info`, `warning` or `error`."
    )
    format: Literal["text", "json"] = _setting("text", "Lines for people, or JSON for programs.")


class E2bTopic(Topic):
    """The dialect of E2B."""

    domain: str | None = _setting(
        None,
        "The name below which servers in sandboxes have host names, as clients are told; without "
        "it that of the request.",
    )
    cors_origins: Names = _setting(
        (), "Origins of web pages that may use E2B's SDK with this service, or `*`."
    )
    debug: bool = _setting(
        False,
        "Have one sandbox for SDKs in debug mode, which show no key: whoever reaches the service "
        "may use it.",
    )


class Settings(BaseSettings):
    """All settings of one service, checked."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    server: ServerTopic = ServerTopic()
    engine: EngineTopic = EngineTopic()
    limits: LimitsTopic = LimitsTopic()
    logs: LogsTopic = LogsTopic()
    e2b: E2bTopic = E2bTopic()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from our own reading only, which knows where each one is from."""
        return (init_settings,)

    @property
    def default_limits(self) -> Limits:
        """The limits of a sandbox that asks for none."""
        return self._limits("")

    @property
    def max_limits(self) -> Limits:
        """The most that may be asked for."""
        return self._limits("max_")

    def _limits(self, prefix: str) -> Limits:
        values = {name: getattr(self.limits, prefix + name) for name in Limits.__slots__}
        # ByteSize is an int that prints differently.
        return Limits(
            **{
                key: int(value) if isinstance(value, int) else value
                for key, value in values.items()
            }
        )


def describe() -> list[tuple[str, str, str]]:
    """Give name, description and unit of each setting, in order."""
    rows = []
    for topic, field in Settings.model_fields.items():
        kind = field.annotation
        if not isinstance(kind, type) or not issubclass(kind, Topic):
            raise TypeError(f"{topic} is no topic")
        for name, each in kind.model_fields.items():
            extra = each.json_schema_extra
            unit = str(extra["unit"]) if isinstance(extra, dict) else ""
            rows.append((f"{topic}.{name}", each.description or "", unit))
    return rows


def engine_settings(settings: Settings) -> dict[str, Any]:
    """Give the fields of `EngineConfig` that settings decide, but for its directories and mode."""
    engine = settings.engine
    chosen: dict[str, Any] = {
        "pool_size": engine.pool_size,
        "max_sandboxes": engine.max_sandboxes,
        "max_tenant_sandboxes": engine.max_tenant_sandboxes,
        "max_creating": engine.max_creating,
        "log_retention": engine.log_retention,
        "log_bytes": int(engine.log_bytes),
        "interrupt_grace": engine.interrupt_grace,
        "default_limits": settings.default_limits,
        "max_limits": settings.max_limits,
        "template_aliases": TEMPLATE_ALIASES,
    }
    if engine.python_prefix is not None:
        chosen["python_prefix"] = engine.python_prefix
    unknown = set(chosen) - set(EngineConfig.__dataclass_fields__)
    if unknown:
        raise TypeError(f"the engine has no setting {sorted(unknown)}")
    return chosen
