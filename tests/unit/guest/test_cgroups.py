"""What is claimed to be enforced, and what is cleaned away, on a v2 tree in memory."""

import os

import pytest

from headrace_guest.cgroups import PREFIX, CgroupLimits, Stats, clean_leftovers, detect
from tests.support.fake_cgroups import MOUNT, FakeCgroups

MIB = 1024 * 1024
LIMITS = CgroupLimits(memory=48 * MIB, disk=16 * MIB, processes=12, cpus=0.2)
EVERYTHING = frozenset({"memory", "processes", "cpu", "freeze", "kill"})
SERVICE = "/system.slice/headrace.service"
ENGINE = 4_400_000


def service(*, delegated: str = "cpu memory pids") -> FakeCgroups:
    """A service's group with the engine and its launcher in it, owned by them."""
    files = FakeCgroups(SERVICE)
    for path in (MOUNT, f"{MOUNT}/system.slice"):
        files.give(path, delegated)
        files.refused.add(path)
    files.groups_by_path[files.own].pids.append(ENGINE)
    return files


def test_a_service_alone_in_its_group_enforces_everything() -> None:
    files = service()
    backend = detect("one", companions=[ENGINE], files=files)
    assert (backend.version, backend.enforced) == ("v2", EVERYTHING)
    base = f"{files.own}/{PREFIX}one"
    assert files.groups_by_path[f"{base}/_launcher"].pids == [os.getpid(), ENGINE]
    assert files.groups(base) == ["_launcher"]
    box = backend.create("box", LIMITS)
    assert files.groups_by_path[f"{base}/box"].files["memory.max"] == str(64 * MIB)
    assert files.groups_by_path[f"{base}/box"].files["cpu.max"] == "20000 100000"
    assert box.stats().oom_kills == 1


def test_a_closed_backend_leaves_the_tree_as_it_was() -> None:
    files = service()
    before = list(files.groups_by_path)
    backend = detect("one", companions=[ENGINE], files=files)
    backend.create("box", LIMITS)
    assert backend.close()
    assert list(files.groups_by_path) == before
    assert files.groups_by_path[files.own].pids == [os.getpid(), ENGINE]
    assert files.groups_by_path[files.own].subtree == set()


def test_a_group_with_strangers_in_it_is_not_emptied() -> None:
    files = service()
    backend = detect("one", files=files)
    assert backend.version == "v2"
    assert backend.enforced == {"freeze", "kill"}
    assert files.groups_by_path[files.own].pids == [os.getpid(), ENGINE]
    assert any("other processes" in note for note in backend.notes)


def test_only_what_is_delegated_is_claimed() -> None:
    backend = detect("one", companions=[ENGINE], files=service(delegated="memory"))
    assert backend.enforced == {"memory", "freeze", "kill"}


def test_root_in_a_login_session_uses_the_nearest_group_that_gives_most() -> None:
    files = FakeCgroups("/user.slice/user-0.slice/session-1.scope")
    files.give(MOUNT, "memory pids cpu")
    files.give(f"{MOUNT}/user.slice", "memory pids")
    files.give(f"{MOUNT}/user.slice/user-0.slice", "memory pids")
    files.groups_by_path[files.own].pids.append(77)
    backend = detect("one", files=files)
    assert backend.enforced == EVERYTHING
    assert files.groups(MOUNT) == ["user.slice", f"{PREFIX}one"]
    assert files.groups(files.own) == []
    assert files.groups_by_path[f"{MOUNT}/user.slice"].subtree == {"memory", "pids"}


def test_a_desktop_user_uses_the_slice_around_the_terminal() -> None:
    app = "/user.slice/user-1000.slice/user@1000.service/app.slice"
    files = FakeCgroups(f"{app}/vte-1.scope")
    path = MOUNT
    for name in app.split("/")[1:]:
        files.give(path, "memory pids")
        if not path.endswith(".service"):
            files.refused.add(path)
        path = f"{path}/{name}"
    files.give(path, "memory pids")
    files.groups_by_path[files.own].pids.append(77)
    backend = detect("one", files=files)
    assert backend.enforced == {"memory", "processes", "freeze", "kill"}
    assert files.groups(f"{MOUNT}{app}") == ["vte-1.scope", f"{PREFIX}one"]


def test_the_root_of_a_machine_without_a_service_manager_is_used() -> None:
    files = FakeCgroups("/")
    files.groups_by_path[MOUNT].pids.append(77)
    assert detect("one", files=files).enforced == EVERYTHING


def test_the_top_of_a_container_with_strangers_gives_no_limits() -> None:
    files = FakeCgroups("/", is_namespace=True)
    files.groups_by_path[MOUNT].pids.append(77)
    assert detect("one", files=files).enforced == {"freeze", "kill"}


def test_a_user_whose_group_belongs_to_others_gets_none() -> None:
    files = FakeCgroups("/user.slice/user-1000.slice/session-1.scope")
    files.refused.update(files.groups_by_path)
    backend = detect("one", files=files)
    assert (backend.version, backend.enforced) == ("none", frozenset())
    assert f"{files.own}/{PREFIX}one: Permission denied" in backend.notes
    box = backend.create("box", LIMITS)
    assert (box.stats(), box.kill(), box.remove()) == (Stats(), False, True)
    assert backend.close()


@pytest.mark.parametrize("text", ["", "garbage\n", "0::/../up\n", "0::/gone (deleted)\n"])
def test_a_machine_that_cannot_be_read_gives_none(text: str) -> None:
    files = service()
    files.membership = text
    assert detect("one", files=files).version == "none"


def test_a_limit_that_does_not_take_effect_is_not_claimed() -> None:
    class Deaf(FakeCgroups):
        def write(self, path: str, text: str) -> None:
            if not path.endswith("/memory.max"):
                super().write(path, text)

    assert detect("one", files=Deaf("/")).enforced == EVERYTHING - {"memory"}


def test_nothing_is_claimed_where_no_process_can_be_moved() -> None:
    class Closed(FakeCgroups):
        def write(self, path: str, text: str) -> None:
            if path.endswith("_probe/cgroup.procs"):
                raise PermissionError(13, path)
            super().write(path, text)

    files = Closed("/")
    backend = detect("one", files=files)
    assert (backend.version, backend.enforced) == ("none", frozenset())
    assert files.groups(MOUNT) == []


def test_a_kernel_without_cgroup_kill_kills_one_by_one() -> None:
    class Old(FakeCgroups):
        def write(self, path: str, text: str) -> None:
            if path.endswith("/cgroup.kill"):
                raise FileNotFoundError(2, path)
            super().write(path, text)

    files = Old("/")
    backend = detect("one", files=files)
    assert backend.enforced == EVERYTHING
    box = backend.create("box", LIMITS)
    pid = files.start_process()
    box.add(pid)
    assert box.kill()
    assert box.processes() == []
    assert box.remove()


@pytest.mark.parametrize("name", ["", "a/b", "..", "_probe", "A", "a" * 65, "a\n", "a b", "-a"])
def test_names_that_could_mean_another_directory_are_refused(name: str) -> None:
    files = FakeCgroups("/")
    with pytest.raises(ValueError, match="not a name"):
        detect(name, files=files)
    backend = detect("one", files=files)
    with pytest.raises(ValueError, match="not a name"):
        backend.create(name, LIMITS)


def test_a_sandbox_whose_name_is_taken_is_refused_and_the_other_stays() -> None:
    files = FakeCgroups("/")
    backend = detect("one", files=files)
    backend.create("box", LIMITS)
    with pytest.raises(FileExistsError):
        backend.create("box", LIMITS)
    assert files.groups(f"{MOUNT}/{PREFIX}one") == ["box"]


def test_a_sandbox_whose_limits_are_refused_leaves_nothing() -> None:
    class Full(FakeCgroups):
        def write(self, path: str, text: str) -> None:
            if path.endswith("box/pids.max"):
                raise OSError(28, path)
            super().write(path, text)

    files = Full("/")
    backend = detect("one", files=files)
    with pytest.raises(OSError, match="pids"):
        backend.create("box", LIMITS)
    assert files.groups(f"{MOUNT}/{PREFIX}one") == []


def test_an_instance_that_is_in_use_is_refused() -> None:
    files = FakeCgroups("/")
    files.locked.add(f"{MOUNT}/{PREFIX}one")
    with pytest.raises(BlockingIOError):
        detect("one", files=files)


def leave_behind(files: FakeCgroups, instance: str) -> str:
    base = f"{MOUNT}/a/{PREFIX}{instance}"
    for path in (base, f"{base}/box"):
        files.make(path)
    files.groups_by_path[f"{base}/box"].pids.append(ENGINE)
    return base


@pytest.fixture
def tree() -> FakeCgroups:
    files = FakeCgroups("/own")
    files.make(f"{MOUNT}/a")
    files.make(f"{MOUNT}/a/b")
    return files


def test_what_a_dead_instance_left_is_killed_and_removed(tree: FakeCgroups) -> None:
    base = leave_behind(tree, "dead")
    assert clean_leftovers(lambda instance: instance != "dead", files=tree) == []
    assert base not in tree.groups_by_path
    assert f"{MOUNT}/a/b" in tree.groups_by_path


def test_what_lives_or_belongs_to_others_is_left_alone(tree: FakeCgroups) -> None:
    bases = [leave_behind(tree, name) for name in ("alive", "locked", "foreign", "around")]
    tree.locked.add(bases[1])
    tree.foreign.add(bases[2])
    tree.membership = f"0::/a/{PREFIX}around/box\n"
    before = dict(tree.groups_by_path)
    assert clean_leftovers(lambda instance: instance == "alive", files=tree) == []
    assert tree.groups_by_path == before
    assert tree.groups_by_path[f"{bases[3]}/box"].pids == [ENGINE]


def test_processes_in_a_launchers_own_leaf_are_not_killed(tree: FakeCgroups) -> None:
    base = leave_behind(tree, "dead")
    tree.make(f"{base}/_launcher")
    tree.groups_by_path[f"{base}/_launcher"].pids.append(77)
    assert clean_leftovers(lambda _: False, files=tree) == [base]
    assert tree.groups(base) == ["_launcher"]
    assert tree.groups_by_path[f"{base}/_launcher"].pids == [77]


def test_a_leftover_that_cannot_be_ended_is_named_when_the_time_is_over() -> None:
    class Immortal(FakeCgroups):
        def write(self, path: str, text: str) -> None:
            if not path.endswith("cgroup.kill"):
                super().write(path, text)

    files = Immortal("/own")
    files.make(f"{MOUNT}/a")
    base = leave_behind(files, "dead")
    assert clean_leftovers(lambda _: False, files=files, timeout=0.01) == [base]
