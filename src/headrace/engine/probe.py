"""What this machine offers to sandboxes, as a list of checks for people and for programs.

Each decision is a pure function of a text or a number that was read; `probe` reads them and runs
the trials. The process that calls it must have one thread, because the trials fork.
"""

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from headrace.engine import privileges, trials
from headrace.engine.places import Places
from headrace.engine.privileges import ServiceIds
from headrace.engine.trials import FIRST_ID, RANGE, TrialError
from headrace.model.errors import IsolationError

MIB = 1024 * 1024
LAST_ID = 2**32 - 2

_MIN_KERNEL = (5, 12)
_WANTED_RANGES = 256
_LOW_DISK, _NO_DISK = 2048 * MIB, 256 * MIB
_MEMORY_KINDS = ("tmpfs", "ramfs")
_USED_CONTROLLERS = ("memory", "cpu", "pids")
_USERNS_SETTINGS = {
    "kernel.unprivileged_userns_clone": "1",
    "user.max_user_namespaces": "15000",
    "kernel.apparmor_restrict_unprivileged_userns": "0",
}


class State(StrEnum):
    """How a check went; a machine with a ``fail`` cannot do what was asked of it."""

    PASS = "pass"  # noqa: S105 - not a password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One fact: what was measured and, if it is not good, what mends it."""

    name: str
    state: State
    value: str
    remedy: str | None = None


def probe(places: Places, *, is_root: bool) -> list[Check]:
    """Check everything; ``is_root`` says that sandboxes are to run in root mode."""
    return [
        check_kernel(os.uname().release),
        *check_namespaces(is_root=is_root),
        *check_seccomp(),
        *check_cgroups(is_root=is_root),
        *(check_ids() if is_root else []),
        *check_python(is_root=is_root),
        *check_languages(),
        *check_disk(places, is_root=is_root),
    ]


def check_trial(
    name: str, trial: Callable[[], str], remedy: str, failed: State = State.FAIL
) -> Check:
    """Make a check of a trial: its answer, or its failure with what mends it."""
    try:
        return Check(name, State.PASS, trials.in_child(trial))
    except TrialError as error:
        return Check(name, failed, f"no: {error}", remedy)


# --- kernel -----------------------------------------------------------------------------------


def check_kernel(release: str) -> Check:
    """Judge the kernel's version."""
    parts = release.split("-")[0].split(".")
    version = tuple(int(part) for part in parts[:2] if part.isdigit())
    if version >= _MIN_KERNEL:
        return Check("kernel", State.PASS, release)
    wanted = ".".join(map(str, _MIN_KERNEL))
    return Check("kernel", State.FAIL, release, f"boot a Linux kernel of at least {wanted}")


def check_namespaces(*, is_root: bool) -> list[Check]:
    """Make one of each kind, and what an ordinary user needs to do without root."""
    settings = {name: _read_setting(name) for name in _USERNS_SETTINGS}
    remedy = userns_remedy(settings)
    for_all = "run headrace as root, outside of a container" if is_root else remedy
    checks = [
        check_trial(f"namespace {name}", _namespace_trial(flag), for_all)
        for name, flag in trials.NAMESPACES.items()
    ]
    needed = State.WARN if is_root else State.FAIL
    return [
        *checks,
        check_trial("user namespace as a user", trials.try_user_namespace, remedy, needed),
        check_trial("overlay as a user", trials.try_overlay, "boot a kernel of 5.11", needed),
        check_trial(
            "new /proc as a user",
            trials.try_proc,
            "give this container an unmasked /proc, or run outside of it",
            needed,
        ),
    ]


def _namespace_trial(flag: int) -> Callable[[], str]:
    return lambda: trials.try_namespace(flag)


def userns_remedy(settings: Mapping[str, str | None]) -> str:
    """Give the line that lets ordinary users make user namespaces."""
    for name, wanted in _USERNS_SETTINGS.items():
        found = settings.get(name)
        is_closed = found == "1" if wanted == "0" else found == "0"
        if is_closed:
            return f"sysctl -w {name}={wanted}"
    return "run as root, or in a container whose seccomp profile allows unshare"


def _read_setting(name: str) -> str | None:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return None


def check_seccomp() -> list[Check]:
    """Install a filter, and set no_new_privs."""
    remedy = "boot a kernel with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64"
    return [
        check_trial("seccomp", trials.try_seccomp, remedy),
        check_trial("no_new_privs", trials.try_no_new_privs, "boot a kernel of at least 3.5"),
    ]


# --- cgroups ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CgroupPlace:
    """A directory of ours in a cgroup hierarchy; version 2 has no fixed controllers."""

    version: int
    controllers: tuple[str, ...]
    directory: Path


def find_cgroups(self_cgroup: str, mountinfo: str) -> list[CgroupPlace]:
    """Find our own directories from /proc/self/cgroup and /proc/self/mountinfo."""
    places = []
    mounts = [mount for mount in map(_parse_mount, mountinfo.splitlines()) if mount is not None]
    for line in self_cgroup.splitlines():
        _number, names, path = line.split(":", 2)
        controllers = tuple(name for name in names.split(",") if name)
        for mount in mounts:
            version = {"cgroup": 1, "cgroup2": 2}.get(mount.kind)
            is_same = not controllers if version == 2 else set(controllers) <= set(mount.options)
            if version is None or not is_same or (version == 1 and not controllers):
                continue
            inside = os.path.relpath(path, mount.root)
            if not inside.startswith(".."):
                places.append(CgroupPlace(version, controllers, mount.point / inside))
                break
    return places


@dataclass(frozen=True, slots=True)
class _Mount:
    root: str
    point: Path
    kind: str
    options: tuple[str, ...]


def _parse_mount(line: str) -> _Mount | None:
    fields, _dash, rest = line.partition(" - ")
    before, after = fields.split(), rest.split()
    if len(before) < 6 or len(after) < 2:
        return None
    options = after[2].split(",") if len(after) > 2 else []
    return _Mount(_unescape(before[3]), Path(_unescape(before[4])), after[0], tuple(options))


def _unescape(text: str) -> str:
    """Read the octal escapes of mountinfo; proc_pid_mountinfo(5)."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def check_cgroups(*, is_root: bool) -> list[Check]:
    """Try to make a cgroup in every hierarchy that has a controller we use."""
    places = find_cgroups(
        Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text()
    )
    usable: dict[str, int] = {}
    for place in places:
        if _can_make_cgroup(place.directory):
            for name in _controllers_of(place):
                usable[name] = max(place.version, usable.get(name, 0))
    return [judge_cgroups(usable, is_root=is_root)]


def _controllers_of(place: CgroupPlace) -> tuple[str, ...]:
    if place.version == 1:
        return place.controllers
    try:
        return tuple((place.directory / "cgroup.controllers").read_text().split())
    except OSError:
        return ()


def _can_make_cgroup(parent: Path) -> bool:
    trial = parent / f"headrace-probe-{os.getpid()}"
    try:
        trial.mkdir()
    except OSError:
        return False
    trial.rmdir()
    return True


def judge_cgroups(usable: Mapping[str, int], *, is_root: bool) -> Check:
    """Say which controllers can be used, by the version that offers each."""
    found = [f"{name} (v{usable[name]})" for name in _USED_CONTROLLERS if name in usable]
    missing = [name for name in _USED_CONTROLLERS if name not in usable]
    if not missing:
        return Check("cgroups", State.PASS, ", ".join(found))
    value = f"{', '.join(found) or 'none'}; not usable: {', '.join(missing)}"
    remedy = (
        "mount the controllers where this process may make directories"
        if is_root
        else "start it with: systemd-run --user --scope -p Delegate=yes headrace ..."
    )
    return Check("cgroups", State.WARN, value, remedy)


# --- ids --------------------------------------------------------------------------------------


def check_ids() -> list[Check]:
    """Count the free id ranges, and show files with mapped ids."""
    users = [entry.pw_uid for entry in pwd.getpwall()]
    subuid = Path("/etc/subuid")
    taken = subuid.read_text() if subuid.is_file() else ""
    count = count_free_ranges(Path("/proc/self/uid_map").read_text(), taken, users)
    return [
        judge_ranges(count),
        check_trial(
            "id-mapped mounts",
            trials.try_idmapped_overlay,
            "boot a kernel of at least 5.19; without it root in a sandbox cannot write to /usr",
            State.WARN,
        ),
    ]


def count_free_ranges(uid_map: str, subuid: str, users: Iterable[int]) -> int:
    """Count the ranges of 65,536 ids from 2,000,000,000 on that are ours to give."""
    taken: set[int] = set()
    for uid in users:
        taken.update(_ranges_of(uid, 1))
    for line in subuid.splitlines():
        words = line.split(":")
        if len(words) == 3 and words[1].isdigit() and words[2].isdigit():
            taken.update(_ranges_of(int(words[1]), int(words[2])))
    mapped: set[int] = set()
    for line in uid_map.splitlines():
        inner, _outer, count = map(int, line.split())
        first = max(0, -(-(inner - FIRST_ID) // RANGE))
        last = (min(inner + count, LAST_ID + 1) - FIRST_ID) // RANGE
        mapped.update(range(first, max(first, last)))
    return len(mapped - taken)


def _ranges_of(first: int, count: int) -> range:
    """Give the numbers of the ranges that ids from ``first`` on touch."""
    end = min(first + count, LAST_ID + 1)
    if end <= FIRST_ID:
        return range(0)
    return range((max(first, FIRST_ID) - FIRST_ID) // RANGE, (end - 1 - FIRST_ID) // RANGE + 1)


def judge_ranges(count: int) -> Check:
    """Judge how many sandboxes can have ids of their own."""
    value = f"{count} free ranges of {RANGE} ids from uid {FIRST_ID} on"
    if count >= _WANTED_RANGES:
        return Check("id ranges", State.PASS, value)
    remedy = "run outside of a user namespace, and keep /etc/subuid and users below that uid"
    return Check("id ranges", State.WARN if count else State.FAIL, value, remedy)


# --- python and other languages ---------------------------------------------------------------


def check_python(*, is_root: bool) -> list[Check]:
    """Find what the Python kernel imports, and whether the service may read its Python."""
    wanted = ("numpy", "pandas", "matplotlib", "pillow", "e2b-charts")
    checks = [
        check_package("ipython", State.FAIL),
        *(check_package(name, State.WARN) for name in wanted),
    ]
    if is_root:
        checks.append(check_service(privileges.find_service_ids))
    return checks


def check_package(name: str, missing: State) -> Check:
    """Find a package in the Python that this process runs in."""
    try:
        return Check(f"python {name}", State.PASS, metadata.version(name))
    except metadata.PackageNotFoundError:
        remedy = "pip install 'headrace[kernel]'"
        return Check(f"python {name}", missing, "not installed", remedy)


def check_service(find_ids: Callable[[], ServiceIds]) -> Check:
    """Become the service in a child, as a start as root does, and read the Python prefix."""
    name = "python for the service"
    try:
        ids = find_ids()
    except IsolationError as error:
        return Check(name, State.FAIL, error.message, f"useradd --system {privileges.SERVICE_USER}")

    def drop() -> str:
        try:
            privileges.drop(ids, privileges.needed_paths())
        except IsolationError as error:
            raise TrialError(error.message) from error
        return f"readable for uid {ids.uid}"

    remedy = "use a Python that every user may read, for instance Debian's python3"
    return check_trial(name, drop, remedy)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A program that runs a language, the Debian package that brings it, and the least version."""

    languages: str
    program: str
    package: str
    least: tuple[int, ...] = ()


INTERPRETERS = (
    Interpreter("javascript, typescript", "node", "nodejs", least=(20, 12)),
    Interpreter("bash", "bash", "bash", least=(5,)),
    Interpreter("r", "R", "r-base-core", least=(4,)),
    Interpreter("java", "java", "default-jdk-headless", least=(17,)),
)
SANDBOX_PATH = "/usr/bin:/bin"
"""Where sandboxes look for programs; /usr/local of the host is not shown to them."""


def check_languages() -> list[Check]:
    """Find the interpreters of the other languages where sandboxes see them."""
    return [
        judge_interpreter(
            interpreter,
            shutil.which(interpreter.program, path=SANDBOX_PATH),
            _ask_version(interpreter.program),
        )
        for interpreter in INTERPRETERS
    ]


def judge_interpreter(interpreter: Interpreter, path: str | None, version: str) -> Check:
    """Say what was found, or which package brings it."""
    name = f"language {interpreter.languages}"
    if path is None:
        remedy = f"apt-get install {interpreter.package}"
        return Check(name, State.WARN, f"no {interpreter.program} in {SANDBOX_PATH}", remedy)
    found = re.search(r"\d+(?:\.\d+)*", version)
    if found is not None and tuple(map(int, found.group().split("."))) < interpreter.least:
        wanted = ".".join(map(str, interpreter.least))
        remedy = f"install {interpreter.package} of at least version {wanted} in {SANDBOX_PATH}"
        return Check(name, State.WARN, f"{path} {version} is too old", remedy)
    return Check(name, State.PASS, f"{path} {version}".strip())


def _ask_version(program: str) -> str:
    path = shutil.which(program, path=SANDBOX_PATH)
    if path is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - a program of the system, no input of anybody
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = (done.stdout or done.stderr).splitlines()
    return lines[0][:60] if lines else ""


# --- disk -------------------------------------------------------------------------------------


def check_disk(places: Places, *, is_root: bool) -> list[Check]:
    """See whether the runtime directory is memory, and how much room the state has."""
    mountinfo = Path("/proc/self/mountinfo").read_text()
    runtime = _existing(places.runtime)
    state = _existing(places.state)
    return [
        judge_runtime(
            places.runtime, file_system_of(runtime.resolve(), mountinfo), is_root=is_root
        ),
        judge_state(places.state, shutil.disk_usage(state).free),
    ]


def _existing(path: Path) -> Path:
    return next(place for place in [path, *path.parents] if place.exists())


def file_system_of(path: Path, mountinfo: str) -> str:
    """Give the kind of file system that ``path`` is on; of several on one point, the last."""
    best, kind = -1, "unknown"
    for line in mountinfo.splitlines():
        mount = _parse_mount(line)
        if mount and path.is_relative_to(mount.point) and len(mount.point.parts) >= best:
            best, kind = len(mount.point.parts), mount.kind
    return kind


def judge_runtime(path: Path, kind: str, *, is_root: bool) -> Check:
    """Small event logs live here, so it should be memory."""
    if kind in _MEMORY_KINDS:
        return Check("runtime directory", State.PASS, f"{path} is memory ({kind})")
    remedy = (
        f"mount -t tmpfs -o mode=0755,size=1g tmpfs {path}"
        if is_root
        else "set XDG_RUNTIME_DIR to a directory of yours in memory"
    )
    return Check("runtime directory", State.WARN, f"{path} is on a disk ({kind})", remedy)


def judge_state(path: Path, free: int) -> Check:
    """Large event logs live here."""
    value = f"{path} has {free // MIB} MiB free"
    if free >= _LOW_DISK:
        return Check("state directory", State.PASS, value)
    state = State.WARN if free >= _NO_DISK else State.FAIL
    return Check("state directory", state, value, f"free at least 2 GiB below {path}")
