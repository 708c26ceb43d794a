"""The sandboxes of the control plane."""

from headrace.adapters.e2b.call import ControlCall
from headrace.adapters.e2b.routing import Route

ROUTES: tuple[Route[ControlCall], ...] = ()
