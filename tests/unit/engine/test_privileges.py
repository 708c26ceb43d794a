"""The decisions of giving root up, with made-up files; tests/integration has the real thing."""

import pwd
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.engine import privileges
from headrace.engine.privileges import Cover, FileFacts, ServiceIds
from headrace.model.errors import IsolationError

SERVICE = ServiceIds(1_999_900_000, 1_999_900_000)
OPEN = FileFacts(0o755, 0, 0)
CLOSED = FileFacts(0o700, 0, 0)
SEARCHABLE = FileFacts(0o711, 0, 0)


def facts(closed: dict[str, FileFacts]) -> Callable[[Path], FileFacts]:
    return lambda path: closed.get(str(path), OPEN)


def unknown_user(name: str) -> pwd.struct_passwd:
    raise KeyError(name)


def known_user(name: str) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", 990, 991, "", "/", "/usr/sbin/nologin"))


def test_the_user_headrace_is_used_where_it_exists() -> None:
    assert privileges.find_service_ids(known_user, "0 0 4294967295\n") == ServiceIds(990, 991)


def test_without_that_user_the_ids_are_fixed_and_below_all_sandboxes() -> None:
    found = privileges.find_service_ids(unknown_user, "0 0 4294967295\n")

    assert found == SERVICE
    assert found.uid < 2_000_000_000


def test_a_user_namespace_without_the_service_id_is_refused_with_the_remedy() -> None:
    with pytest.raises(IsolationError, match="useradd --system headrace"):
        privileges.find_service_ids(unknown_user, "0 100000 65536\n")


def test_a_service_user_that_is_root_is_refused() -> None:
    def root(name: str) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", 0, 0, "", "/", "/bin/sh"))

    with pytest.raises(IsolationError, match="is root"):
        privileges.find_service_ids(root, "0 0 4294967295\n")


@pytest.mark.parametrize(("uid", "expected"), [(0, True), (65535, True), (65536, False)])
def test_an_id_is_mapped_if_a_line_of_the_table_holds_it(uid: int, expected: bool) -> None:
    assert privileges.is_mapped(uid, "0 1000 1\n1 100000 65535\n") is expected


def test_an_owner_is_judged_by_the_owner_bits_alone() -> None:
    assert not FileFacts(0o077, SERVICE.uid, 0).allows(SERVICE, 1)


def test_a_group_member_is_judged_by_the_group_bits() -> None:
    assert FileFacts(0o750, 0, SERVICE.gid).allows(SERVICE, 5)


def test_paths_that_everybody_may_read_need_no_cover() -> None:
    assert privileges.plan_covers([Path("/usr"), Path("/srv/app/.venv")], facts({}), SERVICE) == ()


def test_the_first_closed_ancestor_is_covered_and_the_path_stays_visible() -> None:
    plan = privileges.plan_covers(
        [Path("/root/app/.venv"), Path("/usr")], facts({"/root": CLOSED}), SERVICE
    )

    assert plan == (Cover(Path("/root"), (Path("/root/app/.venv"),)),)


def test_only_the_first_of_several_closed_ancestors_is_covered() -> None:
    closed = {"/root": CLOSED, "/root/app": CLOSED}

    plan = privileges.plan_covers([Path("/root/app/.venv")], facts(closed), SERVICE)

    assert plan == (Cover(Path("/root"), (Path("/root/app/.venv"),)),)


def test_a_path_below_another_needed_one_is_visible_with_it() -> None:
    paths = [Path("/root/app/.venv/lib"), Path("/root/app/.venv"), Path("/root/app/src")]

    plan = privileges.plan_covers(paths, facts({"/root": CLOSED}), SERVICE)

    assert plan == (Cover(Path("/root"), (Path("/root/app/.venv"), Path("/root/app/src"))),)


def test_two_closed_directories_get_a_cover_each() -> None:
    closed = {"/root": CLOSED, "/home/ann": CLOSED}

    plan = privileges.plan_covers([Path("/root/a"), Path("/home/ann/b")], facts(closed), SERVICE)

    assert plan == (
        Cover(Path("/home/ann"), (Path("/home/ann/b"),)),
        Cover(Path("/root"), (Path("/root/a"),)),
    )


def test_an_ancestor_that_can_only_be_searched_is_enough() -> None:
    assert privileges.plan_covers([Path("/root/a")], facts({"/root": SEARCHABLE}), SERVICE) == ()


def test_a_link_below_a_closed_directory_stays_usable_under_its_own_name() -> None:
    links = {Path("/home/link"): Path("/root")}

    plan = privileges.plan_covers(
        [Path("/home/link/a"), Path("/root/a")],
        facts({"/root": CLOSED, "/home/link": CLOSED}),
        SERVICE,
        lambda path: links.get(path, path),
    )

    assert plan == (Cover(Path("/root"), (Path("/root/a"),)),)


def test_a_needed_path_that_is_closed_itself_stops_with_the_remedy() -> None:
    with pytest.raises(IsolationError, match=r"chmod -R go\+rX /srv/app"):
        privileges.plan_covers([Path("/srv/app")], facts({"/srv/app": CLOSED}), SERVICE)


def test_a_needed_path_that_can_only_be_searched_stops() -> None:
    with pytest.raises(IsolationError, match="/srv/app is not readable"):
        privileges.plan_covers([Path("/srv/app")], facts({"/srv/app": SEARCHABLE}), SERVICE)


def test_a_closed_root_directory_stops() -> None:
    with pytest.raises(IsolationError, match="/ is closed"):
        privileges.plan_covers([Path("/srv/app")], facts({"/": CLOSED}), SERVICE)


def test_an_empty_status_of_privileges_is_recognised() -> None:
    status = "CapInh:\t0\nCapPrm:\t0\nCapEff:\t0\nCapBnd:\t0\nCapAmb:\t0\nNoNewPrivs:\t1\n"

    assert privileges.left_privileges(status) == []


def test_each_privilege_that_is_left_is_named() -> None:
    status = "CapInh:\t0\nCapPrm:\t0\nCapEff:\t20\nCapBnd:\tff\nCapAmb:\t0\nNoNewPrivs:\t0\n"

    assert privileges.left_privileges(status) == ["CapEff", "CapBnd", "NoNewPrivs is not set"]


def test_the_needed_paths_hold_the_interpreter_and_both_packages() -> None:
    paths = privileges.needed_paths()

    assert Path(sys.prefix) in paths
    assert Path(sys.base_prefix) in paths
    assert {"headrace", "headrace_guest"} <= {path.name for path in paths}
