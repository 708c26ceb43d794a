"""Giving root up for good: what the engine's process does once the launcher stands.

The launcher keeps root; the process that parses what guests send does not need it. Before the
ids change we make sure that the service can still read the Python that it runs in: where a
directory above it is closed to others (a checkout below a home directory of mode 0700), this
process gets its own view of the files, in which only the needed directories lie at that place.
"""

import os
import pwd
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.model.errors import IsolationError
from headrace_guest import linux

SERVICE_USER = "headrace"
SERVICE_ID = 1_999_900_000
"""The service's uid and gid where no user of that name exists; below all sandboxes' ranges."""

_UMASK = 0o077
_STATUS_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


@dataclass(frozen=True, slots=True)
class ServiceIds:
    """Whom the engine's process becomes."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What decides whether somebody may enter a directory or read a file."""

    mode: int
    uid: int
    gid: int

    def allows(self, ids: ServiceIds, wanted: int) -> bool:
        """Say whether ``wanted`` (4 read, 1 search, or the sum) is allowed to ``ids``."""
        if self.uid == ids.uid:
            granted = self.mode >> 6
        elif self.gid == ids.gid:
            granted = self.mode >> 3
        else:
            granted = self.mode
        return granted & wanted == wanted


@dataclass(frozen=True, slots=True)
class Cover:
    """A closed directory to hide under an empty one, and what stays visible below it."""

    directory: Path
    visible: tuple[Path, ...]


FactsOf = Callable[[Path], FileFacts]


def find_service_ids(
    lookup: Callable[[str], pwd.struct_passwd] = pwd.getpwnam, uid_map: str | None = None
) -> ServiceIds:
    """Give the ids of the user ``headrace`` if there is one, else fixed free ids.

    Raises IsolationError where this user namespace has no such id.
    """
    try:
        entry = lookup(SERVICE_USER)
        ids = ServiceIds(entry.pw_uid, entry.pw_gid)
    except KeyError:
        ids = ServiceIds(SERVICE_ID, SERVICE_ID)
    if ids.uid == 0 or ids.gid == 0:
        raise IsolationError(f"the user {SERVICE_USER!r} is root; give it ids of its own")
    table = Path("/proc/self/uid_map").read_text() if uid_map is None else uid_map
    if not is_mapped(ids.uid, table):
        raise IsolationError(
            f"this machine has no uid {ids.uid} (see /proc/self/uid_map); "
            f"create a user: useradd --system {SERVICE_USER}"
        )
    return ids


def is_mapped(uid: int, table: str) -> bool:
    """Say whether a uid_map(5) table has ``uid`` on its inner side."""
    for line in table.splitlines():
        inner, _outer, count = (int(word) for word in line.split())
        if inner <= uid < inner + count:
            return True
    return False


def needed_paths() -> tuple[Path, ...]:
    """Give the directories that the running service reads: interpreter, packages, our sources."""
    packages = [Path(__file__).parents[1], Path(linux.__file__).parent]
    return tuple(dict.fromkeys([Path(sys.prefix), Path(sys.base_prefix), *packages]))


def read_facts(path: Path) -> FileFacts:
    """Ask the file system, following symbolic links."""
    found = path.stat()
    return FileFacts(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def plan_covers(
    paths: Iterable[Path],
    facts_of: FactsOf,
    ids: ServiceIds,
    resolve: Callable[[Path], Path] = Path,
) -> tuple[Cover, ...]:
    """Decide which directories must be covered so that ``ids`` reach ``paths``.

    A path may lead over symbolic links, which ``resolve`` follows; where the links lead must be
    among the paths, too. Raises IsolationError that names the directory if no cover can help:
    one of the paths is itself closed, or the root is.
    """
    covered: dict[Path, list[Path]] = {}
    for path in paths:
        if not facts_of(path).allows(ids, 5):
            raise IsolationError(
                f"{path} is not readable for the service (uid {ids.uid}); "
                f"make it so: chmod -R go+rX {path}"
            )
        closed = _first_closed(path, facts_of, ids)
        if closed is not None:
            top = resolve(closed)
            covered.setdefault(top, []).append(top / path.relative_to(closed))
    return tuple(Cover(top, _outermost(below)) for top, below in sorted(covered.items()))


def _first_closed(path: Path, facts_of: FactsOf, ids: ServiceIds) -> Path | None:
    for ancestor in reversed(path.parents):
        if not facts_of(ancestor).allows(ids, 1):
            if ancestor == Path("/"):
                raise IsolationError("/ is closed to others; mend it: chmod 755 /")
            return ancestor
    return None


def _outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Leave out what lies below another of the paths: it is visible with that one."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return tuple(kept)


def with_real_paths(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Add where the paths really are; what does not exist is left out."""
    present = [path.absolute() for path in paths if path.exists()]
    return tuple(dict.fromkeys([*present, *(path.resolve() for path in present)]))


def apply_covers(covers: Sequence[Cover]) -> None:
    """Give this process its own view of the files with ``covers`` in it; needs root.

    Other processes, and the launcher, see no change.
    """
    if not covers:
        return
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_SLAVE)
    for cover in covers:
        _apply_cover(cover)


def _apply_cover(cover: Cover) -> None:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    sources = {path: os.open(path, flags) for path in cover.visible}
    top = str(cover.directory)
    try:
        safe = linux.MS_NOSUID | linux.MS_NODEV
        linux.mount("tmpfs", top, "tmpfs", safe, "mode=0755,size=1m,nr_inodes=4096")
        for path, source in sources.items():
            _make_place(cover.directory, path)
            linux.mount(f"/proc/self/fd/{source}", str(path), None, linux.MS_BIND | linux.MS_REC)
        linux.mount(None, top, None, linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | safe)
    finally:
        for source in sources.values():
            os.close(source)


def _make_place(top: Path, path: Path) -> None:
    for part in [*reversed(path.relative_to(top).parents), path.relative_to(top)][1:]:
        place = top / part
        if not place.is_dir():
            place.mkdir()
            place.chmod(0o755)


def prepare_directory(path: Path, ids: ServiceIds) -> None:
    """Make ``path`` a directory that only the service may enter; its parents stay as they are.

    Raises IsolationError if it already holds files of somebody else.
    """
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_uid != ids.uid and any(path.iterdir()):
            raise IsolationError(
                f"{path} holds files of uid {os.fstat(fd).st_uid}; "
                "name an empty directory for the service"
            )
        os.fchown(fd, ids.uid, ids.gid)
        os.fchmod(fd, 0o700)
    finally:
        os.close(fd)


def drop(ids: ServiceIds, paths: Iterable[Path]) -> None:
    """Become ``ids`` for good: no way back, no capability, nothing readable by a tracer.

    ``paths`` are directories that must stay readable afterwards (`needed_paths` and the
    service's own). Must run in a process with one thread: capabilities and ``no_new_privs``
    belong to a thread, and one that was forgotten would keep them.
    """
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise IsolationError(f"privileges can be dropped with one thread only, found {threads}")
    wanted = with_real_paths(paths)
    apply_covers(plan_covers(wanted, read_facts, ids, Path.resolve))
    os.chdir("/")
    os.umask(_UMASK)
    os.setgroups([])
    linux.limit_bounding_set()
    os.setresgid(ids.gid, ids.gid, ids.gid)
    os.setresuid(ids.uid, ids.uid, ids.uid)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.set_capabilities((), ())
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    verify_dropped(ids, wanted)


def verify_dropped(ids: ServiceIds, paths: Iterable[Path]) -> None:
    """Check with the kernel that `drop` had its effect; raises IsolationError if not."""
    if os.getresuid() != (ids.uid,) * 3 or os.getresgid() != (ids.gid,) * 3 or os.getgroups():
        raise IsolationError(f"the ids are {os.getresuid()}, {os.getresgid()}, {os.getgroups()}")
    left = left_privileges(Path("/proc/self/status").read_text())
    if left:
        raise IsolationError(f"privileges are left after dropping them: {', '.join(left)}")
    for path in paths:
        try:
            next(path.iterdir(), None)
        except OSError as error:
            raise IsolationError(
                f"{path} cannot be read as uid {ids.uid} ({error.strerror}); "
                f"make it readable: chmod -R go+rX {path}"
            ) from error


def left_privileges(status: str) -> list[str]:
    """Name what a /proc/PID/status text still shows of privileges."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    left = [name for name in _STATUS_SETS if int(fields.get(name, "0").strip(), 16) != 0]
    if fields.get("NoNewPrivs", "").strip() != "1":
        left.append("NoNewPrivs is not set")
    return left
