"""What the end of user code means: status, exit code, and the end of a child that it forked."""

import os
import sys
import traceback
from typing import NoReturn

_exit = os._exit


def judge(error: BaseException | None, was_interrupted: bool) -> tuple[str, int | None]:
    """Give status and exit code of an execution that ended this way."""
    if error is None:
        return "ok", None
    if isinstance(error, SystemExit):
        code = _exit_code(error)
        return ("ok" if error.code is None or error.code == 0 else "error"), code
    if isinstance(error, KeyboardInterrupt) and was_interrupted:
        return "interrupted", None
    return "error", None


def _exit_code(error: SystemExit) -> int:
    """Give the code that the process would have ended with."""
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1


def print_exit_message(error: BaseException | None) -> None:
    """Write the text that ``sys.exit`` was given, as the interpreter would."""
    if isinstance(error, SystemExit) and not isinstance(error.code, int | None):
        sys.stderr.write(f"{error.code}\n")


def end_forked_child(error: BaseException | None) -> NoReturn:
    """End a child that user code forked and that came back out of the user's code."""
    code = 0
    if isinstance(error, SystemExit):
        code = _exit_code(error)
    elif error is not None:
        code = 1
        traceback.print_exception(error)
    _exit(code)
