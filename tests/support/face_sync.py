"""What tests of the sync face need besides it; `face_async` has the same for the other one."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from headrace.client._shared import answers
from headrace.client._shared.endpoint import parse
from headrace.client._shared.fields import Fields
from headrace.client._shared.patience import Patience
from headrace.client._sync.connection import Connection
from headrace.client._sync.sandbox import Sandbox
from tests.support.scripted import KEY, sandbox_record

T = TypeVar("T")


def pause(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


def together(*functions: Callable[[], T]) -> list[T]:
    """Call all at the same time and give what they give, in order."""
    with ThreadPoolExecutor(len(functions)) as threads:
        return [future.result() for future in [threads.submit(each) for each in functions]]


def sandbox_at(url: str, **patience: float) -> Sandbox:
    """Give a sandbox of a scripted server without asking for it."""
    quick = {"request": 5.0, "silence": 2.0, "reconnect": 5.0, "first_delay": 0.01}
    connection = Connection(parse(url, KEY), Patience(**{**quick, **patience}))  # type: ignore[arg-type]  # floats only
    info = answers.sandbox(Fields("a sandbox", sandbox_record()))
    return Sandbox(connection, info, is_owner=False)
