# Made from the async face by scripts/generate-sync; change that one.
"""The helper for git, which composes commands."""

import pytest
from e2b_code_interpreter import CommandExitException, Sandbox


def repository(sandbox: Sandbox) -> None:
    """Make a repository with one commit."""
    sandbox.git.configure_user("Someone", "someone@example.com")
    sandbox.git.init("repo", initial_branch="main")
    sandbox.files.write("repo/first.txt", "one\n")
    sandbox.git.add("repo")
    sandbox.git.commit("repo", "First")


# covers: git.init, git.add, git.commit, git.status, git.configure_user
def test_changes_are_committed(sandbox: Sandbox) -> None:
    repository(sandbox)
    sandbox.files.write("repo/second.txt", "two\n")

    before = sandbox.git.status("repo")
    sandbox.git.add("repo", files=["second.txt"])
    staged = sandbox.git.status("repo")
    sandbox.git.commit(
        "repo", 'It\'s the "second"', author_name="Other", author_email="other@example.com"
    )
    after = sandbox.git.status("repo")
    log = sandbox.commands.run("git -C repo log --format='%s|%an'")

    assert before.current_branch == "main"
    assert before.has_untracked
    assert staged.has_staged
    assert after.is_clean
    assert log.stdout == 'It\'s the "second"|Other\nFirst|Someone\n'


# covers: git.branches, git.create_branch, git.checkout_branch, git.delete_branch
def test_branches_come_and_go(sandbox: Sandbox) -> None:
    repository(sandbox)

    sandbox.git.create_branch("repo", "side")
    on_side = sandbox.git.branches("repo")
    sandbox.git.checkout_branch("repo", "main")
    sandbox.git.delete_branch("repo", "side")
    at_last = sandbox.git.branches("repo")

    assert on_side.current_branch == "side"
    assert sorted(on_side.branches) == ["main", "side"]
    assert at_last.branches == ["main"]


# covers: git.clone, git.push, git.pull, git.remote_add, git.remote_get
def test_repositories_exchange_commits(sandbox: Sandbox) -> None:
    repository(sandbox)
    sandbox.git.init("bare.git", bare=True, initial_branch="main")
    sandbox.git.remote_add("repo", "origin", "/home/user/bare.git")
    sandbox.git.push("repo", remote="origin", branch="main")
    sandbox.git.clone("/home/user/bare.git", path="copy")
    sandbox.files.write("repo/later.txt", "later\n")
    sandbox.git.add("repo")
    sandbox.git.commit("repo", "Later")
    sandbox.git.push("repo", remote="origin", branch="main")

    sandbox.git.pull("copy")

    assert sandbox.files.read("copy/later.txt") == "later\n"
    assert sandbox.git.remote_get("repo", "origin") == "/home/user/bare.git"
    assert sandbox.git.remote_get("repo", "other") is None


# covers: git.reset, git.restore
def test_changes_are_undone(sandbox: Sandbox) -> None:
    repository(sandbox)
    sandbox.files.write("repo/first.txt", "changed\n")

    sandbox.git.restore("repo", paths=["first.txt"])
    restored = sandbox.files.read("repo/first.txt")
    sandbox.files.write("repo/first.txt", "changed\n")
    sandbox.git.reset("repo", mode="hard", target="HEAD")
    reset = sandbox.files.read("repo/first.txt")

    assert restored == reset == "one\n"


# covers: git.set_config, git.get_config
def test_git_is_configured(sandbox: Sandbox) -> None:
    sandbox.git.init("repo")

    sandbox.git.set_config("core.editor", "ed", scope="local", path="repo")

    assert sandbox.git.get_config("core.editor", scope="local", path="repo") == "ed"
    assert sandbox.git.get_config("core.nothing") is None


# covers: git.dangerously_authenticate
def test_credentials_are_stored_for_one_host(sandbox: Sandbox) -> None:
    sandbox.git.dangerously_authenticate("someone", "secret", host="example.com")

    result = sandbox.commands.run(
        "printf 'protocol=https\\nhost=example.com\\n\\n' | git credential fill"
    )

    assert "username=someone\npassword=secret\n" in result.stdout


def test_what_is_no_repository_raises(sandbox: Sandbox) -> None:
    sandbox.files.make_dir("plain")

    with pytest.raises(CommandExitException):
        sandbox.git.status("plain")
