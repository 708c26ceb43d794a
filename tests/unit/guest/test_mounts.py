"""The mount plan is a pure function of the spec."""

from pathlib import Path

from headrace_guest.mounts import (
    BindIdMapped,
    BindPath,
    HidePath,
    MakeDirectory,
    MakeReadOnly,
    MountFilesystem,
    RootSpec,
    Step,
    plan_root,
)
from headrace_guest.skeleton import Layer
from headrace_guest.sudo_client import SOCKET

BASE = 2_000_000_000
LAYERS = (
    Layer("root", "/state/skeleton", "/"),
    Layer("usr", "/usr", "/usr"),
    Layer("p0", "/opt/env", "/opt/env", mask="/state/mask", owner=(0, 0)),
)


def plan(
    *, base: int | None = BASE, is_mapped: bool = True, layers: tuple[Layer, ...] = LAYERS
) -> list[Step]:
    return plan_root(RootSpec(layers, 1000, 50, base, is_mapped))


def overlays(steps: list[Step]) -> dict[str, str]:
    found = [s for s in steps if isinstance(s, MountFilesystem) and s.kind == "overlay"]
    return {step.path: step.data for step in found}


def test_all_files_share_one_bounded_file_system() -> None:
    first = plan()[0]
    assert first == MountFilesystem("tmpfs", ".", data="size=1000,nr_inodes=50,mode=755")


def test_each_layer_is_an_overlay_at_its_own_place() -> None:
    assert list(overlays(plan())) == ["m", "m/usr", "m/opt/env"]


def test_overlay_options_name_no_path_of_the_host() -> None:
    for data in overlays(plan()).values():
        assert "/state" not in data
        assert all(not part.startswith("/") for part in data.replace("=", ",").split(",")[1::2])


def test_a_mask_lies_above_its_layer() -> None:
    assert "lowerdir=l/p0.mask:l/p0," in overlays(plan())["m/opt/env"]


def test_only_layers_with_an_owner_are_mapped_to_the_user() -> None:
    mapped = {s.path: s.to_user for s in plan() if isinstance(s, BindIdMapped)}
    assert mapped == {"l/root": False, "l/usr": False, "l/p0.mask": True, "l/p0": True}


def test_rootless_plans_map_nothing_and_own_nothing() -> None:
    steps = plan(base=None, is_mapped=False)
    assert not [s for s in steps if isinstance(s, BindIdMapped)]
    assert {s.owner for s in steps if isinstance(s, MakeDirectory)} == {None}
    assert all("userxattr" in data for data in overlays(steps).values())
    assert MakeDirectory("u/usr/bin", 0o555) in steps
    for others in (plan(), plan(is_mapped=False)):
        assert "u/usr/bin" not in {getattr(step, "path", "") for step in others}


def test_without_mapped_ids_what_belongs_to_the_users_is_made_for_them() -> None:
    steps = plan(is_mapped=False)
    assert MakeDirectory("u/root/home/user", owner=(BASE + 1000, BASE + 1000)) in steps
    assert MakeDirectory("u/root/root", 0o700, owner=(BASE, BASE)) in steps
    assert MakeDirectory(f"u/root{Path(SOCKET).parent}", owner=(BASE, BASE)) in steps


def test_a_prefix_below_tmp_is_mounted_after_tmp() -> None:
    layers = (*LAYERS[:2], Layer("p0", "/tmp/x/env", "/tmp/x/env", owner=(0, 0)))
    steps = plan(layers=layers)
    tmp = steps.index(BindPath("t", "m/tmp"))
    mounted = [i for i, s in enumerate(steps) if getattr(s, "path", "") == "m/tmp/x/env"]
    assert mounted
    assert min(mounted) > tmp
    assert MakeDirectory("m/tmp/x") in steps


def test_the_hosts_usr_local_is_covered_unless_it_is_a_prefix() -> None:
    assert BindPath("local", "m/usr/local") in plan()
    layers = (*LAYERS[:2], Layer("p0", "/usr/local", "/usr/local", owner=(0, 0)))
    assert BindPath("local", "m/usr/local") not in plan(layers=layers)


def test_dangerous_parts_of_proc_are_covered() -> None:
    steps = plan()
    for name in ("kcore", "keys", "kmsg", "sysrq-trigger", "timer_list"):
        assert HidePath(f"m/proc/{name}") in steps
    for name in ("sys", "irq", "bus", "fs"):
        assert MakeReadOnly(f"m/proc/{name}") in steps
