"""The skeleton shows an allow-list of the host and nothing that the host hides."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from headrace_guest import skeleton

PYTHON = f"{sys.prefix}/bin/python3"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    packages = tmp_path / "env/lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    (packages / "numpy").mkdir()
    (packages / "headrace").mkdir()
    (packages / "headrace_guest").mkdir()
    (packages / "headrace-0.1.dist-info").mkdir()
    (packages / "_editable_impl_headrace.pth").write_text("/home/someone/secret/src\n")
    (tmp_path / "env/bin").mkdir()
    (tmp_path / "env/bin/headrace").write_text("#!/bin/sh\n")
    return tmp_path / "env"


def build(tmp_path: Path, *prefixes: Path) -> list[skeleton.Layer]:
    state, is_rootless = tmp_path / "state", os.getuid() != 0
    return skeleton.build(state, map(str, prefixes), PYTHON, is_rootless=is_rootless)


def test_the_layers_come_in_the_order_of_mounting(tmp_path: Path, prefix: Path) -> None:
    layers = build(tmp_path, Path("/usr"), prefix)
    assert [layer.target for layer in layers] == ["/", "/usr", str(prefix)]


def test_a_prefix_inside_another_is_not_shown_twice(tmp_path: Path, prefix: Path) -> None:
    layers = build(tmp_path, prefix, prefix / "lib")
    assert [layer.target for layer in layers][2:] == [str(prefix)]


def test_our_own_packages_are_whited_out(tmp_path: Path, prefix: Path) -> None:
    mask = build(tmp_path, prefix)[2].mask
    assert mask is not None
    packages = Path(mask, "lib/python3.11/site-packages")
    assert sorted(path.name for path in packages.iterdir()) == [
        "_editable_impl_headrace.pth",
        "headrace",
        "headrace-0.1.dist-info",
        "headrace_guest",
    ]
    for path in [*packages.iterdir(), Path(mask, "bin/headrace")]:
        info = path.lstat()
        assert stat.S_ISCHR(info.st_mode)
        assert info.st_rdev == 0


def test_our_sudo_stands_in_for_the_hosts(tmp_path: Path) -> None:
    mask = build(tmp_path)[1].mask
    assert mask is not None
    program = Path(mask, "bin/sudo")
    assert stat.S_IMODE(program.stat().st_mode) == 0o755
    done = subprocess.run([program, "-V"], capture_output=True, text=True, check=True, env={})
    assert done.stdout.startswith("sudo of this sandbox")


def login_path(tmp_path: Path, path: str) -> str:
    profile = Path(build(tmp_path)[0].source, "etc/profile")
    command = ["/bin/bash", "-c", f'. {profile}; echo "$PATH"']
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": path})
    return done.stdout.strip()


def test_a_login_shell_keeps_its_path_or_gets_pythons_programs(tmp_path: Path) -> None:
    assert login_path(tmp_path, "/opt/own/bin:/usr/bin") == "/opt/own/bin:/usr/bin"
    for path in ("", "/usr/local/bin:/usr/bin:/bin:/usr/games"):
        assert login_path(tmp_path, path).startswith(f"{sys.prefix}/bin:/usr/local/sbin:")


def test_account_files_are_our_own(tmp_path: Path) -> None:
    root = Path(build(tmp_path)[0].source)
    assert (root / "etc/passwd").read_text().splitlines()[1].startswith("user:x:1000:1000:")
    assert stat.S_IMODE((root / "etc/shadow").stat().st_mode) == 0o600
    assert "$" not in (root / "etc/shadow").read_text()


def test_a_file_that_not_everybody_may_read_is_not_copied(tmp_path: Path) -> None:
    source = tmp_path / "etc"
    source.mkdir()
    (source / "open").write_text("x")
    (source / "closed").write_text("x")
    (source / "closed").chmod(0o640)
    (source / "private").mkdir()
    (source / "server.key").write_text("x")
    skeleton._copy(source, tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["open"]


def test_nothing_secret_of_the_host_is_in_the_skeleton(tmp_path: Path) -> None:
    root = Path(build(tmp_path)[0].source)
    names = {str(path.relative_to(root)) for path in root.rglob("*")}
    for hidden in ("etc/security/opasswd", "etc/ssl/private", "etc/ssh", "etc/apt/auth.conf"):
        assert hidden not in names
    assert not [name for name in names if name.startswith("root/")]


def test_home_is_writable_by_the_user(tmp_path: Path) -> None:
    root = Path(build(tmp_path)[0].source)
    expected = 1000 if os.getuid() == 0 else os.getuid()
    assert (root / "home/user").stat().st_uid == expected
    assert (root / "workspace").stat().st_uid == expected


def test_the_same_host_gives_the_same_skeleton(tmp_path: Path) -> None:
    assert build(tmp_path)[0].source == build(tmp_path)[0].source


def test_parents_of_a_prefix_can_be_searched(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "env").mkdir()
    root = Path(build(tmp_path, closed / "env")[0].source)
    assert stat.S_IMODE((root / str(closed).lstrip("/")).stat().st_mode) == 0o755
