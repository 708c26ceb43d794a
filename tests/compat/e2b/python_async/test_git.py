"""The helper for git, which composes commands."""

import pytest
from e2b_code_interpreter import AsyncSandbox, CommandExitException


async def repository(sandbox: AsyncSandbox) -> None:
    """Make a repository with one commit."""
    await sandbox.git.configure_user("Someone", "someone@example.com")
    await sandbox.git.init("repo", initial_branch="main")
    await sandbox.files.write("repo/first.txt", "one\n")
    await sandbox.git.add("repo")
    await sandbox.git.commit("repo", "First")


# covers: git.init, git.add, git.commit, git.status, git.configure_user
async def test_changes_are_committed(sandbox: AsyncSandbox) -> None:
    await repository(sandbox)
    await sandbox.files.write("repo/second.txt", "two\n")

    before = await sandbox.git.status("repo")
    await sandbox.git.add("repo", files=["second.txt"])
    staged = await sandbox.git.status("repo")
    await sandbox.git.commit(
        "repo", 'It\'s the "second"', author_name="Other", author_email="other@example.com"
    )
    after = await sandbox.git.status("repo")
    log = await sandbox.commands.run("git -C repo log --format='%s|%an'")

    assert before.current_branch == "main"
    assert before.has_untracked
    assert staged.has_staged
    assert after.is_clean
    assert log.stdout == 'It\'s the "second"|Other\nFirst|Someone\n'


# covers: git.branches, git.create_branch, git.checkout_branch, git.delete_branch
async def test_branches_come_and_go(sandbox: AsyncSandbox) -> None:
    await repository(sandbox)

    await sandbox.git.create_branch("repo", "side")
    on_side = await sandbox.git.branches("repo")
    await sandbox.git.checkout_branch("repo", "main")
    await sandbox.git.delete_branch("repo", "side")
    at_last = await sandbox.git.branches("repo")

    assert on_side.current_branch == "side"
    assert sorted(on_side.branches) == ["main", "side"]
    assert at_last.branches == ["main"]


# covers: git.clone, git.push, git.pull, git.remote_add, git.remote_get
async def test_repositories_exchange_commits(sandbox: AsyncSandbox) -> None:
    await repository(sandbox)
    await sandbox.git.init("bare.git", bare=True, initial_branch="main")
    await sandbox.git.remote_add("repo", "origin", "/home/user/bare.git")
    await sandbox.git.push("repo", remote="origin", branch="main")
    await sandbox.git.clone("/home/user/bare.git", path="copy")
    await sandbox.files.write("repo/later.txt", "later\n")
    await sandbox.git.add("repo")
    await sandbox.git.commit("repo", "Later")
    await sandbox.git.push("repo", remote="origin", branch="main")

    await sandbox.git.pull("copy")

    assert await sandbox.files.read("copy/later.txt") == "later\n"
    assert await sandbox.git.remote_get("repo", "origin") == "/home/user/bare.git"
    assert await sandbox.git.remote_get("repo", "other") is None


# covers: git.reset, git.restore
async def test_changes_are_undone(sandbox: AsyncSandbox) -> None:
    await repository(sandbox)
    await sandbox.files.write("repo/first.txt", "changed\n")

    await sandbox.git.restore("repo", paths=["first.txt"])
    restored = await sandbox.files.read("repo/first.txt")
    await sandbox.files.write("repo/first.txt", "changed\n")
    await sandbox.git.reset("repo", mode="hard", target="HEAD")
    reset = await sandbox.files.read("repo/first.txt")

    assert restored == reset == "one\n"


# covers: git.set_config, git.get_config
async def test_git_is_configured(sandbox: AsyncSandbox) -> None:
    await sandbox.git.init("repo")

    await sandbox.git.set_config("core.editor", "ed", scope="local", path="repo")

    assert await sandbox.git.get_config("core.editor", scope="local", path="repo") == "ed"
    assert await sandbox.git.get_config("core.nothing") is None


# covers: git.dangerously_authenticate
async def test_credentials_are_stored_for_one_host(sandbox: AsyncSandbox) -> None:
    await sandbox.git.dangerously_authenticate("someone", "secret", host="example.com")

    result = await sandbox.commands.run(
        "printf 'protocol=https\\nhost=example.com\\n\\n' | git credential fill"
    )

    assert "username=someone\npassword=secret\n" in result.stdout


async def test_what_is_no_repository_raises(sandbox: AsyncSandbox) -> None:
    await sandbox.files.make_dir("plain")

    with pytest.raises(CommandExitException):
        await sandbox.git.status("plain")
