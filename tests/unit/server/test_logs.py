import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from headrace.server import logs
from headrace.server.settings import LogsTopic


@pytest.fixture(autouse=True)
def _keep_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    names = ("asyncio", "uvicorn", "uvicorn.error", "uvicorn.access", "websockets", "httpcore")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:], root.level = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    structlog.reset_defaults()


def write(**settings: str) -> list[str]:
    stream = io.StringIO()
    logs.configure(LogsTopic.model_validate(settings), stream)
    log = structlog.stdlib.get_logger("test")
    log.debug("detail seen")
    log.info("request answered", status=200, path="/a b\n", empty="", key='x"y')
    logging.getLogger("headrace.engine").warning("sandbox not ended: %s", "why")
    try:
        int("defect")
    except ValueError:
        logging.getLogger("headrace").exception("request failed", extra={"request_id": "r"})
    for noisy in ("uvicorn.error", "websockets", "asyncio"):
        logging.getLogger(noisy).info("GET /files?signature=secret")
    return stream.getvalue().splitlines()


def test_lines_for_people_have_one_line_each_but_for_tracebacks() -> None:
    lines = write()

    assert lines[0].split(" ", 1)[1] == (
        r'info    request answered  status=200 path="/a b\n" key="x\"y"'
    )
    assert lines[1].split(" ", 1)[1] == "warning sandbox not ended: why"
    assert lines[2].split(" ", 1)[1] == "error   request failed  request_id=r"
    assert lines[3].startswith("Traceback")
    assert lines[-1] == "ValueError: invalid literal for int() with base 10: 'defect'"


def test_lines_for_programs_are_json() -> None:
    lines = [json.loads(line) for line in write(format="json", level="debug")]

    assert [line["event"] for line in lines] == [
        "detail seen",
        "request answered",
        "sandbox not ended: why",
        "request failed",
    ]
    assert lines[1]["path"] == "/a b\n"
    assert lines[3]["exception"].endswith(
        "ValueError: invalid literal for int() with base 10: 'defect'"
    )


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_libraries_that_write_query_strings_are_quiet_at_every_level(level: str) -> None:
    assert "secret" not in "\n".join(write(level=level))


def test_a_guest_cannot_fill_the_log_with_bodies_that_it_breaks_off() -> None:
    stream = io.StringIO()
    logs.configure(LogsTopic.model_validate({}), stream)
    library = logging.getLogger("uvicorn.error")

    library.error("ASGI callable returned without completing response.")
    library.error("ASGI callable returned without starting response.")

    assert "completing" not in stream.getvalue()
    assert "starting" in stream.getvalue()
