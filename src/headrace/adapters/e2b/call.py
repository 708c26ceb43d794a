"""What a handler gets: a request whose credentials were good, and whom it concerns."""

from collections.abc import Mapping

from headrace.adapters.e2b.exchange import Exchange
from headrace.adapters.e2b.registry import Registry
from headrace.adapters.e2b.users import read_user
from headrace.engine.files import Files
from headrace.engine.sandbox import Sandbox
from headrace.engine.tenancy import TenantEngine

NO_PATH: Mapping[str, str] = {}


class Call:
    """A request of the data plane, for one sandbox that runs.

    ``path`` has the parameters of the path by their names.
    """

    __slots__ = ("exchange", "path", "registry", "sandbox")

    def __init__(
        self,
        exchange: Exchange,
        sandbox: Sandbox,
        registry: Registry,
        path: Mapping[str, str] = NO_PATH,
    ) -> None:
        self.exchange = exchange
        self.sandbox = sandbox
        self.registry = registry
        self.path = path

    @property
    def user(self) -> str:
        """The user that ``Authorization: Basic`` names; raises UnauthenticatedError."""
        return read_user(self.exchange.header(b"authorization"))

    @property
    def files(self) -> Files:
        """The files as clients of the vendor know them: no right is in the way."""
        return self.sandbox.files.privileged


class ControlCall:
    """A request of the control plane, by the owner of a key.

    ``tenant`` is the engine as that owner sees it, ``path`` has the parameters of the path.
    """

    __slots__ = ("exchange", "path", "registry", "tenant")

    def __init__(
        self,
        exchange: Exchange,
        tenant: TenantEngine,
        registry: Registry,
        path: Mapping[str, str] = NO_PATH,
    ) -> None:
        self.exchange = exchange
        self.tenant = tenant
        self.registry = registry
        self.path = path
