"""A terminal: what is typed, and what it shows."""

import sys

from headrace import PtySize, Sandbox

with Sandbox.create() as sandbox, sandbox.pty.create(PtySize(cols=80, rows=24)) as terminal:
    terminal.write("stty size\n")
    terminal.write("exit 7\n")
    for data in terminal:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    print("ended with", terminal.exited.exit_code if terminal.exited else "nothing")
