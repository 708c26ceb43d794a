"""The ordinary user for whom the rootless tests run, and the environment that this user owns.

Root builds the wheels (its registry configuration is the machine's), the user unpacks and
installs them: root never writes into a directory of the user who runs hostile code.
"""

import hashlib
import os
import pwd
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

USER = "headrace-test"
_PASSED_ON = ("LANG", "LC_ALL", "TZ", "CI", "HYPOTHESIS_PROFILE")
_SUITE = ("tests", "examples", "docs", "scripts", "pyproject.toml")


@dataclass(frozen=True, slots=True)
class OrdinaryUser:
    """A user without privileges; what it is to own is written by processes of its own."""

    name: str
    uid: int
    gid: int
    home: Path

    def run(
        self, argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None
    ) -> int:
        """Run a command as this user and nobody else, and give its exit status."""
        return self._start(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL).wait()

    def must_run(self, *argv: str | Path) -> None:
        """Run a command as this user; raises if it fails."""
        status = self.run(argv, env=None)
        if status:
            raise subprocess.CalledProcessError(status, [str(word) for word in argv])

    def receive(self, destination: Path, members: Iterable[Path]) -> None:
        """Replace the directory ``destination`` by copies of ``members``."""
        self.must_run("rm", "-rf", "--", destination)
        self.must_run("mkdir", "--", destination)
        unpack = ["tar", "--extract", "--file=-", "--directory", str(destination)]
        process = self._start(unpack, cwd=None, env=None, stdin=subprocess.PIPE)
        assert process.stdin is not None
        with process.stdin, tarfile.open(fileobj=process.stdin, mode="w|") as archive:
            for member in members:
                archive.add(member, member.name, filter=_without_caches)
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, "tar")

    def _start(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path | None,
        env: Mapping[str, str] | None,
        stdin: int,
    ) -> subprocess.Popen[bytes]:
        own = {
            "HOME": str(self.home),
            "USER": self.name,
            "LOGNAME": self.name,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
        }
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return subprocess.Popen(
            argv,
            cwd=cwd or self.home,
            env={**kept, **own, **(env or {})},
            stdin=stdin,
            user=self.uid,
            group=self.gid,
            extra_groups=os.getgrouplist(self.name, self.gid),
            umask=0o022,
        )


def _without_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(member.name).name == "__pycache__" else member


def ensure_user(name: str = USER) -> OrdinaryUser:
    """Find the user, or create it; root only."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        create = ["useradd", "--create-home", "--user-group", "--shell", "/bin/sh", name]
        subprocess.run(create, check=True)
        entry = pwd.getpwnam(name)
    if entry.pw_uid < 1000:
        raise RuntimeError(
            f"user {name} has the system id {entry.pw_uid}; expected an ordinary one"
        )
    return OrdinaryUser(name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))


def build(user: OrdinaryUser, checkout: Path) -> Path:
    """Give the prefix of an environment of the user with the checkout's wheel in it."""
    prefix = user.home / "venv"
    stamp = prefix / ".built-for"
    base = _base_interpreter()
    wanted = f"{base} {hashlib.sha256((checkout / 'pyproject.toml').read_bytes()).hexdigest()}"
    if not stamp.is_file() or stamp.read_text().strip() != wanted:
        user.must_run(base, "-I", "-m", "venv", "--clear", prefix)
        _install(
            user,
            prefix,
            ["--group", f"{checkout}/pyproject.toml:dev", f"{checkout}[server,kernel]"],
        )
        user.must_run("sh", "-c", 'printf "%s\\n" "$0" >"$1"', wanted, stamp)
    else:
        _install(user, prefix, ["--no-deps", str(checkout)])
    return prefix


def copy_suite(user: OrdinaryUser, checkout: Path) -> Path:
    """Give a copy of the tests that the user owns; the sources are not among them."""
    suite = user.home / "suite"
    documents = sorted(checkout.glob("*.md"))
    present = [checkout / name for name in _SUITE if (checkout / name).exists()]
    user.receive(suite, [*present, *documents])
    return suite


def _base_interpreter() -> Path:
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def _install(user: OrdinaryUser, prefix: Path, wanted: list[str]) -> None:
    wheels = user.home / "wheels"
    with tempfile.TemporaryDirectory() as made:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "wheel", "--quiet", "--wheel-dir", made, *wanted], check=True)
        user.receive(wheels, sorted(Path(made).iterdir()))
    install = ["install", "--quiet", "--no-index", "--no-deps", "--force-reinstall"]
    python = prefix / "bin" / "python"
    quiet = "--disable-pip-version-check"
    user.must_run(python, "-m", "pip", quiet, *install, *sorted(wheels.iterdir()))
    user.must_run("rm", "-rf", "--", wheels)
