"""What the JVM is given: an archive of our classes, which are those of the sources."""

import io
import subprocess
import zipfile
from pathlib import Path

import headrace_guest
from headrace_guest.kernels.interpreter import Ends, Order
from headrace_guest.kernels.java import Java

CLASSES = Path(headrace_guest.__file__).with_name("kernels") / "java_loop"
SCRIPT = Path(__file__).parents[4] / "scripts" / "compile-java"
ENDS = Ends(channel=7, order=8, program=9, alarm=10)


def test_the_archive_has_the_classes_and_says_what_they_need() -> None:
    with zipfile.ZipFile(io.BytesIO(Java("/usr/bin/java").program)) as archive:
        names = set(archive.namelist())
        manifest = archive.read("META-INF/MANIFEST.MF").decode()
    assert names == {"META-INF/MANIFEST.MF", *(path.name for path in CLASSES.glob("*.class"))}
    assert "Loop.class" in names
    assert "Main-Class: Loop\n" in manifest
    assert all(len(line) <= 72 for line in manifest.splitlines())


def test_the_archive_is_the_same_each_time() -> None:
    assert Java("/usr/bin/java").program == Java("/usr/bin/java").program


def test_the_loop_is_read_from_memory() -> None:
    command = Java("/usr/bin/java").command(ENDS)
    assert command[0] == "/usr/bin/java"
    assert command[-5:] == ["-jar", "/dev/fd/9", "7", "8", "10"]


def test_an_order_is_fields_that_end_with_nul_and_the_code() -> None:
    order = Order("1 + 1", {"A": "x=y"}, "/tmp")
    assert Java("/usr/bin/java").encode(order) == b"/tmp\x001\x00A=x=y\x001 + 1"


def test_the_classes_are_those_of_the_sources(tmp_path: Path) -> None:
    subprocess.run([SCRIPT, CLASSES, tmp_path], check=True, timeout=60)
    compiled = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert compiled == {path.name: path.read_bytes() for path in CLASSES.glob("*.class")}
