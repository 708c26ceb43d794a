"""The requests for the files of a sandbox, as data."""

from headrace.client._shared.request import BYTES, Request, as_json, delete, get, path_to


def list_files(sandbox_id: str, path: str, depth: int, user: str | None) -> Request:
    """Ask for the entries of a directory."""
    query = [("path", path), ("depth", depth), ("user", user)]
    return get(path_to("sandboxes", sandbox_id, "files", query=query))


def stat_file(sandbox_id: str, path: str, user: str | None) -> Request:
    """Ask what a path is."""
    query = [("path", path), ("user", user)]
    return get(path_to("sandboxes", sandbox_id, "files", "info", query=query))


def read_file(sandbox_id: str, path: str, user: str | None) -> Request:
    """Ask for the content of a file."""
    query = [("path", path), ("user", user)]
    target = path_to("sandboxes", sandbox_id, "files", "content", query=query)
    return Request("GET", target, accept=BYTES, can_repeat=True, is_transfer=True)


def write_file(
    sandbox_id: str,
    path: str,
    *,
    user: str | None,
    mode: int | None,
    parents: bool,
    append: bool,
) -> Request:
    """Ask to write the content of a file, which is sent apart."""
    query = [
        ("path", path),
        ("user", user),
        ("mode", None if mode is None else f"{mode:o}"),
        ("parents", parents),
        ("append", append or None),
    ]
    target = path_to("sandboxes", sandbox_id, "files", "content", query=query)
    # What is appended must not be appended twice.
    return Request("PUT", target, content_type=BYTES, can_repeat=not append, is_transfer=True)


def set_mode(sandbox_id: str, path: str, mode: int, user: str | None) -> Request:
    """Ask to change the permission bits of a path."""
    body = {"path": path, "mode": mode, "user": user}
    return as_json("PATCH", path_to("sandboxes", sandbox_id, "files"), body, can_repeat=True)


def remove_file(
    sandbox_id: str, path: str, *, recursive: bool, missing_ok: bool, user: str | None
) -> Request:
    """Ask to remove a path."""
    query = [("path", path), ("recursive", recursive), ("missing_ok", missing_ok), ("user", user)]
    return delete(path_to("sandboxes", sandbox_id, "files", query=query))


def make_directory(
    sandbox_id: str,
    path: str,
    *,
    parents: bool,
    exist_ok: bool,
    mode: int | None,
    user: str | None,
) -> Request:
    """Ask to make a directory."""
    body = {"path": path, "parents": parents, "exist_ok": exist_ok, "mode": mode, "user": user}
    target = path_to("sandboxes", sandbox_id, "files", "directories")
    return as_json("POST", target, body, can_repeat=exist_ok)


def move_file(
    sandbox_id: str, source: str, destination: str, *, parents: bool, user: str | None
) -> Request:
    """Ask to move a path."""
    body = {"source": source, "destination": destination, "parents": parents, "user": user}
    return as_json("POST", path_to("sandboxes", sandbox_id, "files", "move"), body)


def start_watch(sandbox_id: str, path: str, *, recursive: bool, user: str | None) -> Request:
    """Ask to be told of changes below a directory."""
    body = {"path": path, "recursive": recursive, "user": user}
    return as_json("POST", path_to("sandboxes", sandbox_id, "watches"), body)


def stop_watch(watch_id: str) -> Request:
    """Ask to end a watch."""
    return delete(path_to("watches", watch_id))
