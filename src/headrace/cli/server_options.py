"""The options that the commands around the service share: flags that are settings."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headrace.model.errors import InvalidRequestError

if TYPE_CHECKING:  # the server is an extra; see `require_server`
    from headrace.server.configuration import Configuration

F = TypeVar("F", bound=Callable[..., Any])

_FLAGS = (
    ("--host", "server.host", "ADDRESS", "Listen on this address (127.0.0.1)."),
    ("--port", "server.port", "PORT", "Listen on this port (8000); 0 takes a free one."),
    ("--socket", "server.socket", "PATH", "Listen on this unix socket, too."),
    ("--public-url", "server.public_url", "URL", "The URL by which clients know the service."),
    ("--tls-cert", "server.tls_cert", "FILE", "Speak HTTPS with this certificate (PEM)."),
    ("--tls-key", "server.tls_key", "FILE", "The private key of the certificate (PEM)."),
    ("--mode", "engine.mode", "MODE", "auto, root or rootless."),
    ("--require", "engine.require", "NAMES", "Refuse to start without these protections."),
    ("--pool-size", "engine.pool_size", "N", "Keep so many sandboxes ready (4)."),
    ("--state-dir", "engine.state_dir", "DIR", "Where what must last is kept."),
    ("--runtime-dir", "engine.runtime_dir", "DIR", "Where what is gone at the end is kept."),
    ("--log-level", "logs.level", "LEVEL", "debug, info, warning or error."),
    ("--log-format", "logs.format", "FORMAT", "text or json."),
)


def setting_options(function: F) -> F:
    """Add the flags to a command, which gets them as keyword arguments for `read_flags`."""
    for flag, _, metavar, text in reversed(_FLAGS):
        function = click.option(flag, metavar=metavar, help=text)(function)
    function = click.option("--no-tcp", is_flag=True, help="Listen on the socket only.")(function)
    function = click.option(
        "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Set any other setting."
    )(function)
    return config_option(function)


def config_option(function: F) -> F:
    """Add the option that names the file with the settings."""
    return click.option("--config", metavar="FILE", help="Read the settings from this file.")(
        function
    )


def read_flags(options: Mapping[str, Any]) -> dict[str, object]:
    """Give the settings that were named on the command line, by name."""
    flags = dict(_read_assignments(options["assignments"]))
    for flag, name, _, _ in _FLAGS:
        value = options[flag.removeprefix("--").replace("-", "_")]
        if value is not None:
            flags[name] = value
    if options["no_tcp"]:
        flags["server.tcp"] = False
    return flags


def _read_assignments(assignments: Iterable[str]) -> Iterable[tuple[str, object]]:
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise InvalidRequestError(f"--set needs NAME=VALUE, got {assignment!r}")
        yield name.strip(), value


def load(options: Mapping[str, Any], environ: Mapping[str, str], **more: object) -> "Configuration":
    """Read all settings; ``more`` are those that the command itself decides, unless set."""
    require_server()
    from headrace.server import configuration

    config = options["config"]
    flags = read_flags(options) if "assignments" in options else {}
    path = Path(config) if config else None
    loaded = configuration.load(environ, flags, path)
    usual = {name: value for name, value in more.items() if loaded.origins[name] == "default"}
    return configuration.load(environ, {**usual, **flags}, path) if usual else loaded


def require_server() -> None:
    """Say in one line what is missing where only the SDK was installed."""
    try:
        import headrace.server.service  # noqa: F401 - only whether it can be imported
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "headrace":
            raise
        raise click.ClickException(
            f"the service is not installed ({package} is missing): pip install 'headrace[server]'"
        ) from error
