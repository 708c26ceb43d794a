"""What a sandbox can see of the host's files, and where it can write."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.engine.sandbox import Sandbox
from tests.security.prelude import attempt, each, name_of, pids, read_path, write_path
from tests.security.probes import Place, Probe, outside, probe_in
from tests.support.modes import Mode
from tests.support.running import CANARY

DEVICES = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm"}
DEVICE_LINKS = {"fd", "stdin", "stdout", "stderr", "core", "mqueue"}
NEVER_VISIBLE = (
    "/etc/security/opasswd",
    "/etc/ssl/private",
    "/etc/ssh",
    "/etc/apt/auth.conf",
    "/etc/apt/auth.conf.d",
    "/etc/pip.conf",
    "/etc/npmrc",
    "/etc/gshadow",
    "/etc/sudoers.d",
    "/etc/machine-id",
    "/etc/headrace",
    "/var/lib/headrace",
    "/var/log",
    "/var/spool",
    "/var/backups",
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/systemd",
    "/run/headrace",
    "/run/user",
    "/boot",
    "/lost+found",
    "/.dockerenv",
)
"""Host paths that no sandbox shows; empty directories of the skeleton's own are harmless."""


@pytest.fixture
def planted() -> Iterator[list[str]]:
    """Files of the host in each place where this user can make one."""
    places = ["/tmp", "/var/tmp", "/dev/shm", str(Path.home()), "/srv", "/opt", "/run", "/mnt"]
    made = []
    for place in places:
        if os.access(place, os.W_OK):
            fd, name = tempfile.mkstemp(dir=place, prefix="planted-")
            os.write(fd, CANARY.encode())
            os.close(fd)
            Path(name).chmod(0o666)
            made.append(name)
    yield made
    for name in made:
        Path(name).unlink()


def read_each(paths: list[str]) -> dict[str, object]:
    """Try to read each of these files."""
    return each(paths, read_path)


async def test_files_of_the_host_are_absent(probe: Probe, planted: list[str]) -> None:
    """Threat (1): read, in the host's writable places, what other users left there."""
    assert len(planted) >= 3
    # The sandbox's own /root may be closed to the user.
    assert set((await probe(read_each, planted)).values()) <= {"ENOENT", "EACCES"}
    assert set(outside(read_each, planted).values()) == {"ok"}


def read_shadow() -> list[str]:
    """Read the password hashes."""
    path = Path("/etc/shadow")
    return [read_path("/etc/shadow"), path.read_text() if os.access(path, os.R_OK) else ""]


def _hashes_of_the_host() -> list[str]:
    lines = Path("/etc/shadow").read_text().splitlines()
    return [line.split(":")[1] for line in lines if len(line.split(":")[1]) > 2]


async def test_password_hashes_are_not_the_hosts(probe: Probe, mode: Mode) -> None:
    """Threat (1): crack the passwords of the host's users."""
    verdict, text = await probe(read_shadow)
    assert verdict in ("ok", "EACCES", "ENOENT")
    if mode is Mode.ROOT:
        assert not [value for value in _hashes_of_the_host() if value in text]
    # Locked accounts only: no hash is longer than "*", "!" or "!*".
    assert all(len(line.split(":")[1]) <= 2 for line in text.splitlines())


async def test_the_user_cannot_read_password_hashes(kernel_probe: Probe, mode: Mode) -> None:
    """Threat (1): the sandbox's own shadow file is root's, where there is a root."""
    verdict, _text = await kernel_probe(read_shadow)
    assert verdict == "EACCES" if mode is Mode.ROOT else verdict in ("ok", "EACCES", "ENOENT")


def what_is_there(paths: list[str]) -> dict[str, object]:
    """List each directory, or say that something else is there; nothing if it is absent."""

    def look(path: str) -> object:
        try:
            return sorted(os.listdir(path))  # noqa: PTH208 - also for what is not a directory
        except NotADirectoryError:
            return "a file"
        except OSError as error:
            return name_of(error.errno or 0)

    return each(paths, look)


async def test_what_must_never_be_visible_is_not(probe: Probe) -> None:
    """Threat: credentials, sockets and logs of the host, by their usual names."""
    verdict = await probe(what_is_there, list(NEVER_VISIBLE))
    harmless: list[object] = ["ENOENT", "ENOTDIR", "EACCES", []]
    shown = {path: found for path, found in verdict.items() if found not in harmless}
    assert not shown


async def test_top_directories_hold_nothing_of_the_host(probe: Probe) -> None:
    """Threat: the directories that are not on the list of what a sandbox shows."""
    tops = ["/root", "/home", "/opt", "/srv", "/run", "/mnt", "/media", "/var/lib", "/var"]
    verdict = await probe(what_is_there, tops)
    for top in ("/srv", "/mnt", "/media"):
        assert verdict[top] in ("ENOENT", []), top
    assert verdict["/home"] == ["user"] or _is_parent_of_prefix("/home", verdict["/home"])
    assert verdict["/root"] in ("EACCES", []) or _is_parent_of_prefix("/root", verdict["/root"])
    assert verdict["/opt"] in ("ENOENT", []) or _is_parent_of_prefix("/opt", verdict["/opt"])
    assert set(verdict["/run"]) <= {"lock", "hr", "sudo"}
    assert set(verdict["/var/lib"]) <= {"dpkg", "apt", "python", "misc"}


def _is_parent_of_prefix(top: str, entries: object) -> bool:
    """Say whether the entries are the mount point of a Python prefix below ``top``."""
    prefixes = {Path(sys.prefix), Path(sys.base_prefix)}
    allowed = {"user"} | {
        prefix.relative_to(top).parts[0] for prefix in prefixes if prefix.is_relative_to(top)
    }
    return isinstance(entries, list) and set(entries) <= allowed


def _is_file_of_the_host(path: str, name: str) -> bool:
    return Path(path, name).is_file()


async def test_tools_of_the_host_in_usr_local_are_masked(probe: Probe) -> None:
    """Threat: a host's /usr/local holds private tools and configuration."""
    kinds = [f"/usr/local/{name}" for name in ("bin", "sbin", "lib", "etc", "share", "libexec")]
    verdict = await probe(what_is_there, kinds)
    for path, found in verdict.items():
        names = set(found) if isinstance(found, list) else set()
        assert not {name for name in names if _is_file_of_the_host(path, name)}, path


def devices() -> dict[str, object]:
    """List /dev, and try devices that a host has."""
    wanted = "kmsg mem kvm vsock fuse vda sda nvme0n1 loop0 loop-control port net/tun cuse hwrng"
    listing = {
        entry.name: "link" if entry.is_symlink() else oct(entry.lstat().st_mode)
        for entry in Path("/dev").iterdir()
    }
    tried = each(wanted.split(), lambda name: attempt(os.open, f"/dev/{name}", os.O_RDONLY))
    return {"listing": listing, "tried": tried}


async def test_only_harmless_devices_exist(probe: Probe) -> None:
    """Threat (7): the disk, the kernel's memory, the hypervisor."""
    verdict = await probe(devices)
    assert set(verdict["listing"]) <= DEVICES | DEVICE_LINKS
    assert {"null", "zero", "urandom", "pts", "shm"} <= set(verdict["listing"])
    assert set(verdict["tried"].values()) == {"ENOENT"}


def spoil_devices() -> dict[str, str]:
    """Try to change the device nodes, which all sandboxes and the host share.

    The mode and the time are such that no harm is done where it works.
    """
    return {
        "chmod": attempt(os.chmod, "/dev/null", 0o666),
        "utime": attempt(os.utime, "/dev/null", (1.0, 1.0)),
        "xattr": attempt(os.setxattr, "/dev/null", "user.mark", b"1"),
        "unlink": attempt(os.unlink, "/dev/null"),
        "rename": attempt(os.rename, "/dev/zero", "/dev/nought"),
        "create": attempt(os.open, "/dev/new", os.O_CREAT | os.O_WRONLY),
    }


async def test_device_nodes_cannot_be_changed(probe: Probe) -> None:
    """Threat: the nodes are the host's own; chmod 000 /dev/null would stop the machine."""
    verdict = await probe(spoil_devices)
    assert set(verdict.values()) <= {"EPERM", "EROFS", "EACCES", "EBUSY"}, verdict


def sysfs_and_cgroups() -> dict[str, object]:
    """Look for sysfs, control groups and their release agent."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    system = Path("/sys")
    return {
        "sys": sorted(entry.name for entry in system.iterdir()) if system.is_dir() else [],
        "kinds": sorted({line.split(" - ")[1].split()[0] for line in lines}),
        "own cgroups": Path("/proc/self/cgroup").read_text().splitlines(),
    }


async def test_there_is_no_sysfs_and_no_cgroup_tree(probe: Probe) -> None:
    """Threat (8): release_agent runs a program as root on the host; sysfs writes to hardware."""
    verdict = await probe(sysfs_and_cgroups)
    assert verdict["sys"] == []
    assert set(verdict["kinds"]) <= {"overlay", "tmpfs", "proc", "devpts", "mqueue", "devtmpfs"}
    assert {line.split(":", 2)[2] for line in verdict["own cgroups"]} <= {"/"}


def mounts_and_cgroups() -> list[str]:
    """Give everything that the kernel tells about how this sandbox is made."""
    names = ("mountinfo", "mounts", "mountstats", "cgroup", "cpuset")
    return [Path("/proc/self", n).read_text() for n in names if os.path.exists(f"/proc/self/{n}")]  # noqa: PTH110


async def test_mounts_do_not_tell_where_the_host_keeps_things(
    probe: Probe, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Threat (40): paths of the service, of its state or of other sandboxes leak."""
    base = str(tmp_path_factory.getbasetemp())
    for text in await probe(mounts_and_cgroups):
        shown = text.replace(sys.prefix, "").replace(sys.base_prefix, "")
        for secret in (base, "headrace", "/state", "/var/lib", "/templates"):
            assert secret not in shown, secret


def overwrite(paths: list[str]) -> dict[str, str]:
    """Try to change files that all sandboxes share."""
    changes: dict[str, str] = {}
    for path in paths:
        changes[f"write {path}"] = write_path(path, b"changed")
        changes[f"chmod {path}"] = attempt(os.chmod, path, 0o777)
        changes[f"rename {path}"] = attempt(os.rename, path, f"{path}.moved")
    return changes


def shared_files() -> list[str]:
    """Name files of the host's /usr that every sandbox has."""
    import json

    return [os.path.realpath(path) for path in ("/bin/sh", "/usr/bin/env", json.__file__)]


async def test_the_user_cannot_change_shared_files(kernel_probe: Probe) -> None:
    """Threat (31): what one sandbox changes in /usr would run in the others and on the host."""
    paths = shared_files()
    verdict = await kernel_probe(overwrite, paths)
    assert set(verdict.values()) <= {"EACCES", "EPERM", "EROFS", "ETXTBSY"}, verdict


def replace_shell() -> dict[str, str]:
    """As root of the sandbox, replace what is shared."""
    target = os.path.realpath("/usr/bin/env")
    Path("/usr/bin/planted").write_text("planted")
    os.unlink(target)  # noqa: PTH108 - the file itself
    Path(target).write_text("replaced")
    return {"env": Path(target).read_text(), "planted": Path("/usr/bin/planted").read_text()}


def look_at_shell() -> dict[str, object]:
    """Look at what the other one replaced."""
    head = Path("/usr/bin/env").read_bytes()[:4]
    return {"elf": head == b"\x7fELF", "planted": read_path("/usr/bin/planted")}


async def test_what_in_sandbox_root_changes_stays_in_its_sandbox(
    sandbox: Sandbox, other: Sandbox
) -> None:
    """Threat (31): root inside may write to /usr; neither sibling nor host may see it."""
    changed = await probe_in(sandbox, Place.ROOT, replace_shell)
    assert changed == {"env": "replaced", "planted": "planted"}
    untouched = {"elf": True, "planted": "ENOENT"}
    assert await probe_in(other, Place.KERNEL, look_at_shell) == untouched
    assert outside(look_at_shell) == untouched


def own_writes() -> dict[str, str]:
    """Write where the user is meant to."""
    return {
        path: attempt(os.open, f"{path}/mine", os.O_CREAT | os.O_WRONLY, 0o600)
        for path in ("/tmp", "/home/user", "/workspace", "/dev/shm")
    }


async def test_sandboxes_do_not_share_what_they_write(sandbox: Sandbox, other: Sandbox) -> None:
    """Threat: two sandboxes have one writable directory in common."""
    assert set((await probe_in(sandbox, Place.KERNEL, own_writes)).values()) == {"ok"}
    paths = [f"{top}/mine" for top in ("/tmp", "/home/user", "/workspace", "/dev/shm")]
    assert set((await probe_in(other, Place.KERNEL, read_each, paths)).values()) == {"ENOENT"}
    assert set((await probe_in(sandbox, Place.KERNEL, read_each, paths)).values()) == {"empty"}


def climb() -> dict[str, object]:
    """Follow every link that /proc offers to a root or a directory of some process."""
    ways: dict[str, object] = {}
    for pid in [*pids(), "self"]:
        for name in ("root", "cwd"):
            path = f"/proc/{pid}/{name}"
            try:
                ways[f"{pid}/{name}"] = sorted(os.listdir(path))[:40]  # noqa: PTH208
            except OSError as error:
                ways[f"{pid}/{name}"] = name_of(error.errno or 0)
    return {"ways": ways, "root": sorted(os.listdir("/"))[:40]}  # noqa: PTH208


async def test_proc_offers_no_other_root(kernel_probe: Probe, planted: list[str]) -> None:
    """Threat (2): /proc/1/root or the directory of a joined kernel leads to the host."""
    verdict = await kernel_probe(climb)
    assert verdict["ways"]["self/root"] == verdict["root"]
    assert verdict["ways"]["1/root"] == "EACCES"
    roots = {tuple(v) for k, v in verdict["ways"].items() if k.endswith("root") and v != "EACCES"}
    assert roots == {tuple(verdict["root"])}
    names = {
        f"/proc/{pid}/{link}{path}"
        for pid in (1, "self")
        for link in ("root", "cwd")
        for path in planted
    }
    answers = set((await kernel_probe(read_each, sorted(names))).values())
    assert answers <= {"ENOENT", "EACCES"}


def dot_dot(planted_paths: list[str]) -> list[str]:
    """Climb with many dots, from the root and through descriptors."""
    up = "../" * 30
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    answers = []
    for path in planted_paths:
        answers.append(read_path(f"/{up}{path}"))
        answers.append(read_path(f"/proc/self/fd/{fd}/{up}{path}"))
        answers.append(read_path(f"/proc/self/cwd/{up}{path}"))
    return sorted(set(answers))


async def test_dots_do_not_climb_out(probe: Probe, planted: list[str]) -> None:
    """Threat: the old root is still mounted above the new one."""
    assert set(await probe(dot_dot, planted)) <= {"ENOENT", "EACCES"}
    assert outside(dot_dot, planted) == ["ok"]


def kernel_settings() -> dict[str, object]:
    """Open settings of the kernel for writing, and read what tells about the host."""
    settings = (
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/fs/file-max",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
    )
    secrets = ("kcore", "keys", "key-users", "kmsg", "timer_list", "sched_debug", "vmallocinfo")
    return {
        "write": each(settings, lambda path: attempt(os.open, path, os.O_WRONLY)),
        "read": each(secrets, lambda name: read_path(f"/proc/{name}")),
    }


async def test_settings_of_the_kernel_cannot_be_written(probe: Probe) -> None:
    """Threats (4, 5): core_pattern runs a program as root on the host; sysrq stops it."""
    verdict = (await probe(kernel_settings))["write"]
    trigger = verdict.pop("/proc/sysrq-trigger")
    # Where the file is covered by /dev/null it opens, and a write goes nowhere.
    assert trigger in ("ok", "EACCES", "EROFS", "ENOENT")
    assert set(verdict.values()) <= {"EACCES", "EPERM", "EROFS", "ENOENT"}, verdict
    assert verdict["/proc/sys/kernel/core_pattern"] != "ENOENT"


def what_covers_sysrq() -> object:
    """Say what the file of the emergency keys really is."""
    import stat

    if not os.path.exists("/proc/sysrq-trigger"):  # noqa: PTH110
        return "absent"
    info = os.stat("/proc/sysrq-trigger")  # noqa: PTH116
    device = stat.S_ISCHR(info.st_mode) and info.st_rdev == os.makedev(1, 3)
    return "null" if device else write_path("/proc/sysrq-trigger", b"h")


async def test_the_emergency_keys_are_covered(probe: Probe) -> None:
    """Threat (5): write "b" to sysrq-trigger and the machine reboots."""
    assert await probe(what_covers_sysrq) in ("absent", "null", "EACCES", "EROFS", "EPERM")


def what_covers(names: list[str]) -> dict[str, object]:
    """Say what stands where the kernel would tell about the whole machine."""
    import stat

    def look(name: str) -> str:
        path = f"/proc/{name}"
        try:
            info = os.stat(path)  # noqa: PTH116 - raw, like the rest
        except OSError as error:
            return name_of(error.errno or 0)
        if stat.S_ISDIR(info.st_mode):
            return "open" if os.listdir(path) else "covered"  # noqa: PTH208
        is_null = stat.S_ISCHR(info.st_mode) and info.st_rdev == os.makedev(1, 3)
        return "covered" if is_null else "open"

    return each(names, look)


async def test_what_proc_tells_of_the_host_is_hidden(probe: Probe) -> None:
    """Threats (5, 6): kernel memory, keys and messages of the whole machine."""
    names = """kcore keys key-users kmsg timer_list sched_debug kallsyms vmallocinfo slabinfo
        pagetypeinfo acpi scsi asound latency_stats sysrq-trigger"""
    verdict = await probe(what_covers, names.split())
    assert set(verdict.values()) <= {"covered", "ENOENT"}, verdict
    assert "open" in outside(what_covers, names.split()).values()
    answers = (await probe(kernel_settings))["read"]
    assert set(answers.values()) <= {"empty", "ENOENT", "EACCES", "EPERM"}, answers
