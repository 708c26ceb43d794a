"""The order as fields that end with NUL, which every language can cut; for those without JSON."""

from headrace_guest.kernels.interpreter import Order


def encode_fields(order: Order) -> bytes:
    """Write the directory, the number of variables, those as NAME=VALUE, and the code."""
    pairs = [f"{name}={value}" for name, value in order.env.items()]
    fields = [order.cwd or "", str(len(pairs)), *pairs]
    head = "".join(field + "\0" for field in fields)
    return head.encode("utf-8", "surrogateescape") + order.code.encode("utf-8", "replace")
