"""The generated part of a sandbox's root: everything that is not the host's /usr or a prefix.

A sandbox sees an allow-list, never the host's root: this skeleton, /usr, and the Python prefix
at its own absolute path (shebangs and pyvenv.cfg are absolute). The skeleton is made of our own
account files, of empty directories, and of copies of harmless host configuration. A host file
is copied only if everybody on the host may read it: a copy made by root would otherwise show
what the host hides, for instance /etc/security/opasswd.
"""

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

VERSION = "2"
USER_ID = 1000
HOME = "/home/user"
HIDDEN = "headrace"
"""What carries this word in a directory of packages or of programs is ours and not shown."""

_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_DIRECTORIES = (
    "dev etc proc sys tmp run run/sudo usr home home/user workspace root mnt opt srv"
    " var var/cache var/cache/apt var/lib var/lib/dpkg var/lib/dpkg/info var/log var/tmp"
)
_COPIED = (
    "R alternatives bash.bashrc ca-certificates.conf debian_version default/locale dpkg fonts"
    " gai.conf host.conf inputrc java-17-openjdk java-21-openjdk ld.so.cache ld.so.conf"
    " ld.so.conf.d locale.alias localtime login.defs magic magic.mime mime.types networks"
    " nodejs os-release pam.conf pam.d perl profile.d protocols python3 python3.11"
    " python3.12 python3.13 security services shells skel ssl terminfo timezone xattr.conf"
)
_OWN_FILES = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/bash\n"
        "user:x:1000:1000:user:/home/user:/bin/bash\n"
        "_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "etc/group": (
        "root:x:0:\ntty:x:5:\nshadow:x:42:\nstaff:x:50:\nuser:x:1000:\nnogroup:x:65534:\n"
    ),
    "etc/hosts": "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost\n",
    "etc/hostname": "sandbox\n",
    "etc/resolv.conf": "# this sandbox has no network\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    # Both users of a sandbox are the same person, and either may have made a repository.
    "etc/gitconfig": "[safe]\n\tdirectory = *\n",
    "var/lib/dpkg/status": "",
}
_PROFILE = """\
# For login shells. A command of this sandbox starts with its PATH; one that comes from elsewhere
# (su gives such a one) gets Python's programs, too.
case "${{PATH-}}" in
  "" | /usr/local/sbin:/usr/local/bin:* | /usr/local/bin:/usr/bin:*)
    PATH="{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    export PATH
    ;;
esac
for script in /etc/profile.d/*.sh; do
  if [ -r "$script" ]; then . "$script"; fi
done
unset script
if [ -n "${{PS1-}}" ] && [ -n "${{BASH-}}" ] && [ -r /etc/bash.bashrc ]; then
  . /etc/bash.bashrc
fi
"""
_SHADOW = "root:*:19000:0:99999:7:::\nuser:*:19000:0:99999:7:::\n"
_SECRET_NAMES = ("private", "opasswd")
_SECRET_SUFFIXES = (".key", ".pwd", ".secret")


@dataclass(frozen=True)
class Layer:
    """One lower directory of a sandbox's root.

    ``name`` is its short neutral name, ``source`` the host directory, ``target`` the place in
    the sandbox and ``mask`` a directory of whiteouts above it, or None. ``owner`` is the host
    uid and gid that are shown as the sandbox's user, so that it may write there (pip), or None
    for a layer whose files keep their owners.
    """

    name: str
    source: str
    target: str
    mask: str | None = None
    owner: tuple[int, int] | None = None


class SkeletonError(Exception):
    """The host's layout cannot be shown to a sandbox."""


def build(state: Path, prefixes: Iterable[str], python: str, *, is_rootless: bool) -> list[Layer]:
    """Build the skeleton and the masks below ``state`` if they are not there; give the layers.

    ``prefixes`` are the Python prefixes to show, besides /usr, and ``python`` is the interpreter
    that programs of ours inside are run by. The order of the layers is the order in which they
    must be mounted. Safe to run in several processes at once.
    """
    for name in ("bin", "lib"):
        if not Path("/", name).is_symlink():
            raise SkeletonError(f"/{name} is not a link to /usr/{name}; a merged /usr is needed")
    shown = _outer_prefixes(prefixes)
    own = {**_OWN_FILES, "etc/profile": _PROFILE.format(programs=Path(python).parent)}

    def fill(at: Path) -> None:
        _fill(at, shown, own)
        if not is_rootless:
            _own_home(at)

    kind = "rootless" if is_rootless else "root"
    root = _make_once(state / f"{kind}-{_fingerprint(shown, own)}", fill)
    mask = _mask(state, "/usr", {"bin/sudo": _sudo(python)})
    layers = [Layer("root", str(root), "/"), Layer("usr", "/usr", "/usr", mask)]
    for index, prefix in enumerate(shown):
        info = Path(prefix).stat()
        owner = (info.st_uid, info.st_gid)
        layers.append(Layer(f"p{index}", prefix, prefix, _mask(state, prefix), owner))
    return layers


def _outer_prefixes(prefixes: Iterable[str]) -> list[str]:
    """Drop /usr itself and what lies inside another prefix; sort for stable names."""
    real = sorted({os.path.realpath(prefix) for prefix in prefixes} - {"/usr"})
    outer: list[str] = []
    for prefix in real:
        if not any(prefix.startswith(other + "/") for other in outer):
            outer.append(prefix)
    return outer


def _make_once(target: Path, fill: Callable[[Path], None]) -> Path:
    if target.is_dir():
        return target
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    work = target.with_name(f".{target.name}.{os.urandom(6).hex()}")
    work.mkdir(mode=0o755)
    work.chmod(0o755)
    fill(work)
    try:
        work.rename(target)
    except OSError:
        # Somebody else was faster; theirs is the same.
        shutil.rmtree(work)
    return target


def _fingerprint(prefixes: list[str], own: Mapping[str, str]) -> str:
    """Name a skeleton after all that it is made from, so that a changed host makes a new one."""
    facts = [VERSION, *prefixes, _DIRECTORIES, *own.values()]
    for name in _COPIED.split():
        path = Path("/etc", name)
        try:
            info = path.lstat()
        except OSError:
            continue
        facts.append(f"{name} {info.st_mtime_ns} {info.st_size}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _fill(root: Path, prefixes: list[str], own: Mapping[str, str]) -> None:
    for name in _MERGED:
        if Path("/", name).is_symlink():
            (root / name).symlink_to(Path("/", name).readlink())
    for name in _DIRECTORIES.split():
        (root / name).mkdir(mode=0o755, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    (root / "root").chmod(0o700)
    for prefix in prefixes:
        _make_parents(root, prefix)
    for name in _COPIED.split():
        _copy(Path("/etc", name), root / "etc" / name)
    for name, text in own.items():
        (root / name).write_text(text)
    shadow = root / "etc/shadow"
    shadow.write_text(_SHADOW)
    shadow.chmod(0o600)
    _fill_home(root)


def _make_parents(root: Path, prefix: str) -> None:
    """Make the mount point of a prefix; its parents must be searchable by the sandbox's user."""
    at = root
    for part in Path(prefix).parts[1:]:
        at /= part
        at.mkdir(exist_ok=True)
        if not at.stat().st_mode & stat.S_ISVTX:
            at.chmod(0o755)


def _fill_home(root: Path) -> None:
    for name in (".bashrc", ".profile", ".bash_logout"):
        _copy(Path("/etc/skel", name), root / "home/user" / name)


def _own_home(root: Path) -> None:
    for top in ("home/user", "workspace"):
        for at, _directories, files in os.walk(root / top):
            os.chown(at, USER_ID, USER_ID)
            for name in files:
                os.chown(Path(at, name), USER_ID, USER_ID, follow_symlinks=False)


def _copy(source: Path, target: Path) -> None:
    """Copy a file, link or tree as far as everybody on the host may read it."""
    try:
        info = source.lstat()
    except OSError:
        return
    if source.name in _SECRET_NAMES or source.name.endswith(_SECRET_SUFFIXES):
        return
    if stat.S_ISLNK(info.st_mode):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.readlink())
    elif stat.S_ISDIR(info.st_mode) and info.st_mode & 0o005 == 0o005:
        target.mkdir(mode=0o755, parents=True, exist_ok=True)
        for entry in source.iterdir():
            _copy(entry, target / entry.name)
    elif stat.S_ISREG(info.st_mode) and info.st_mode & 0o004:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(stat.S_IMODE(info.st_mode) & 0o755)


def _sudo(python: str) -> str:
    """Give the text of the program that stands in for the host's sudo, which can do nothing."""
    text = Path(__file__).with_name("sudo_client.py").read_text()
    return f"#!{python} -IS\n{text}"


def _mask(state: Path, source: str, programs: Mapping[str, str] | None = None) -> str | None:
    """Make a layer over ``source`` that hides all that is ours; None if it would be empty.

    ``programs`` are what it has besides, by their paths below ``source``. A whiteout is a
    character device 0:0, which any user may make (overlayfs, mknod(2)). The directories above it
    take the owner of the directories that they cover, because overlayfs shows the uppermost
    directory's.
    """
    hidden = sorted(_hidden_below(source))
    programs = programs or {}
    if not hidden and not programs:
        return None
    owner = Path(source).stat().st_uid
    facts = [VERSION, str(owner), source, *hidden, *programs, *programs.values()]
    name = hashlib.sha256("\n".join(facts).encode())

    def fill(at: Path) -> None:
        for path in hidden:
            _cover(Path(source), at, path)
            os.mknod(at / path, stat.S_IFCHR, os.makedev(0, 0))
        for path, text in programs.items():
            _cover(Path(source), at, path)
            (at / path).write_text(text)
            (at / path).chmod(0o755)

    return str(_make_once(state / f"mask-{name.hexdigest()[:16]}", fill))


def _hidden_below(source: str) -> Iterator[str]:
    patterns = (
        "lib/python3*/site-packages/*",
        "lib/python3*/dist-packages/*",
        "lib/python3/dist-packages/*",
        "bin/*",
    )
    for pattern in patterns:
        for path in Path(source).glob(pattern):
            if HIDDEN in path.name.lower():
                yield str(path.relative_to(source))


def _cover(source: Path, mask: Path, path: str) -> None:
    """Make the directories above a path like those that they cover."""
    below, above = source, mask
    _mirror(below, above)
    for part in Path(path).parts[:-1]:
        below, above = below / part, above / part
        above.mkdir(exist_ok=True)
        _mirror(below, above)


def _mirror(below: Path, above: Path) -> None:
    info = below.stat()
    above.chmod(stat.S_IMODE(info.st_mode))
    with contextlib.suppress(OSError):
        # An owner that an ordinary user cannot give is replaced by that user, and so it is shown.
        os.chown(above, info.st_uid, info.st_gid)
