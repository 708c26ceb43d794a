"""The table of the control plane."""

from headrace.adapters.e2b.call import ControlCall
from headrace.adapters.e2b.control import lists, missing, observing, sandboxes, templates
from headrace.adapters.e2b.routing import Route

ROUTES: tuple[Route[ControlCall], ...] = (
    *sandboxes.ROUTES,
    *lists.ROUTES,
    *observing.ROUTES,
    *templates.ROUTES,
    *missing.ROUTES,
)
"""Every operation of the control plane."""
