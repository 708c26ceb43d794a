"""Java contexts: a JVM with JShell in it, whose loop in ``java_loop`` runs one order after another.

The loop is shipped as classes, since compiling it would take as long as starting the JVM does. It
gets the packages of the JDK that it must look into from the manifest of its archive, because the
options for that make the start slower.
"""

import io
import zipfile
from pathlib import Path

from headrace_guest.kernels.fields import encode_fields
from headrace_guest.kernels.interpreter import Ends, Order

_CLASSES = Path(__file__).with_name("java_loop")
_MANIFEST = """\
Manifest-Version: 1.0
Main-Class: Loop
Add-Opens: java.base/java.io java.base/java.lang java.base/sun.nio.fs
Add-Exports: java.base/jdk.internal.module

"""
_OPTIONS = (
    "-Xmx640m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Xshare:auto",
    "-Dfile.encoding=UTF-8",
    "-Dsun.stdout.encoding=UTF-8",
    "-Dsun.stderr.encoding=UTF-8",
    "-Djava.awt.headless=true",
)


class Java:
    """How the JVM is started and what it reads; see ``java_loop/Loop.java`` for the other end."""

    has_alarm = True
    interrupts_after = 0.0
    interrupts_again: float | None = None

    def __init__(self, program: str) -> None:
        self._program = program
        self.program = _make_archive()

    def command(self, ends: Ends) -> list[str]:
        """Give the words that start the JVM."""
        archive = f"/dev/fd/{ends.program}"
        numbers = [str(ends.channel), str(ends.order), str(ends.alarm)]
        return [self._program, *_OPTIONS, "-jar", archive, *numbers]

    def encode(self, order: Order) -> bytes:
        """Write the order as fields."""
        return encode_fields(order)


def _make_archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(zipfile.ZipInfo("META-INF/MANIFEST.MF"), _MANIFEST)
        for path in sorted(_CLASSES.glob("*.class")):
            archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
    return content.getvalue()
