"""Rich results: their text, their files' names and bytes, and the process that writes them."""

import base64
import os
import socket
from pathlib import Path

import pytest

from headrace.cli import results, results_writer
from headrace.cli.results import ResultsFolder
from headrace.cli.results_writer import Answer, FileWriter
from headrace.model.errors import InvalidRequestError, LimitExceededError, SandboxFailedError
from headrace.model.results import Json, Result

PNG = b"\x89PNG\r\n\x1a\nrest"
PICTURE = Result({"text/plain": "<Figure>", "image/png": base64.b64encode(PNG).decode()})
TABLE = Result({"text/plain": "   a\n0  1", "text/html": "<table></table>"})


def test_a_results_text_is_its_plain_form() -> None:
    assert results.text_form(TABLE) == "   a\n0  1"


def test_a_result_without_a_plain_form_names_the_forms_it_has() -> None:
    only_large = Result({"image/png": ""}, omitted={"image/svg+xml": 10**8})

    assert results.text_form(only_large) == "<image/png, image/svg+xml>"


def test_a_result_without_any_form_has_a_text_all_the_same() -> None:
    assert results.text_form(Result({})) == "<an empty result>"


@pytest.mark.parametrize(
    ("mime", "suffix"),
    [
        ("image/png", "png"),
        ("image/jpeg", "jpg"),
        ("image/svg+xml", "svg"),
        ("application/pdf", "pdf"),
        ("text/html", "html"),
        ("application/json", "json"),
        ("application/vnd.plotly.v1+json", "vnd-plotly-v1.json"),
        ("application/vnd.headrace.data+json", "data.json"),
        ("application/vnd.headrace.chart+json", "chart.json"),
        ("application/geo+json", "geo.json"),
        ("text/x.custom", "x-custom"),
        ("nonsense", "bin"),
        ("image/../../etc/passwd", "etc-passwd"),
        ("image/\x00/ü", "bin"),
    ],
)
def test_a_suffix_has_harmless_characters_only(mime: str, suffix: str) -> None:
    assert results.suffix_of(mime) == suffix


def test_a_very_long_type_has_a_short_suffix() -> None:
    assert len(results.suffix_of("a/" + "x" * 10_000)) <= 40


@pytest.mark.parametrize(
    ("mime", "value", "data"),
    [
        ("image/png", base64.b64encode(PNG).decode(), PNG),
        ("image/png", base64.encodebytes(PNG).decode(), PNG),
        ("image/png", "not base64!", b"not base64!"),
        ("image/svg+xml", "<svg/>", b"<svg/>"),
        ("text/html", "ä", "ä".encode()),
        ("text/html", "\ud800", b"?"),
        ("application/json", {"a": ["ä", None]}, '{\n "a": [\n  "ä",\n  null\n ]\n}\n'.encode()),
    ],
)
def test_a_form_becomes_the_bytes_of_its_file(mime: str, value: Json, data: bytes) -> None:
    assert results.encode_form(mime, value) == data


def test_only_pictures_and_documents_need_a_file_to_be_seen() -> None:
    assert results.has_picture(PICTURE)
    assert not results.has_picture(TABLE)
    assert not results.has_picture(
        Result(
            {
                "text/plain": "{}",
                "application/json": {},
                "application/vnd.headrace.data+json": {},
                "application/vnd.headrace.chart+json": {},
            }
        )
    )


def test_the_number_after_the_highest_is_free(tmp_path: Path) -> None:
    for name in ("result-001.png", "result-007.html", "result-x.png", "other-099.png"):
        (tmp_path / name).touch()

    assert results.first_free_number(tmp_path) == 8


async def test_results_are_saved_under_stable_names(tmp_path: Path) -> None:
    with ResultsFolder(str(tmp_path / "new" / "out")) as folder:
        first = await folder.save(PICTURE)
        nothing = await folder.save(Result({"text/plain": "5"}))
        second = await folder.save(
            Result({"image/png": PICTURE.bundle["image/png"], "text/html": "<b>"})
        )

    out = tmp_path / "new" / "out"
    assert first == [f"{out}/result-001.png"]
    assert nothing == []
    assert second == [f"{out}/result-002.png", f"{out}/result-002.html"]
    assert (out / "result-001.png").read_bytes() == PNG


async def test_a_later_run_overwrites_nothing(tmp_path: Path) -> None:
    with ResultsFolder(str(tmp_path)) as folder:
        (tmp_path / "result-001.png").write_text("somebody was faster")
        (tmp_path / "result-002.png").symlink_to("victim")
        saved = await folder.save(PICTURE)

    assert saved == [f"{tmp_path}/result-003.png"]
    assert (tmp_path / "result-001.png").read_text() == "somebody was faster"
    assert not (tmp_path / "victim").exists()


async def test_a_large_result_arrives_whole(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    large = Result({"image/png": base64.b64encode(data).decode()})

    with ResultsFolder(str(tmp_path)) as folder:
        await folder.save(large)

    assert (tmp_path / "result-001.png").read_bytes() == data


async def test_a_result_over_the_bound_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "MAX_FILE", 100)

    with ResultsFolder(str(tmp_path)) as folder:
        with pytest.raises(LimitExceededError, match=r"result-001\.html has 101 bytes"):
            await folder.save(Result({"text/html": "x" * 101}))
        assert await folder.save(TABLE) == [f"{tmp_path}/result-001.html"]


async def test_a_directory_that_went_away_is_named(tmp_path: Path) -> None:
    place = tmp_path / "out"
    with ResultsFolder(str(place)) as folder:
        place.rmdir()
        with pytest.raises(SandboxFailedError, match=r"result-001\.html .*No such file"):
            await folder.save(TABLE)


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()

    with pytest.raises(InvalidRequestError, match=r"--results .*out': File exists"):
        ResultsFolder(str(tmp_path / "out"))


def test_a_directory_with_nul_in_its_name_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="null"):
        ResultsFolder("a\0b")


def open_files(pid: int) -> list[str]:
    return sorted(str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir())


async def test_the_child_holds_no_descriptor_but_its_own(tmp_path: Path) -> None:
    canary = os.open("/dev/zero", os.O_RDONLY)
    try:
        with ResultsFolder(str(tmp_path)) as folder:
            await folder.save(TABLE)
            targets = open_files(folder.pid)
    finally:
        os.close(canary)

    assert targets[:3] == ["/dev/null"] * 3
    assert targets[3] == str(tmp_path)
    assert targets[4].startswith("socket:")
    assert len(targets) == 5


def ask(directory: Path, request: bytes) -> bytes:
    """Send raw bytes to a writer and give everything that it answers before it hangs up."""
    ours, theirs = socket.socketpair()
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with ours, theirs:
            ours.sendall(request)
            ours.shutdown(socket.SHUT_WR)
            FileWriter(fd).serve(theirs)
            theirs.shutdown(socket.SHUT_WR)
            return ours.recv(1000)
    finally:
        os.close(fd)


def request_for(name: bytes, data: bytes, size: int | None = None) -> bytes:
    header = results_writer.REQUEST.pack(len(name), len(data) if size is None else size)
    return header + name + data


@pytest.mark.parametrize(
    "name", [b"../x", b"a/b", b".hidden", b"", b"UPPER", b"x" * 65, b"a\0", b"a b", "ä".encode()]
)
def test_the_writer_hangs_up_on_a_name_that_it_does_not_know(tmp_path: Path, name: bytes) -> None:
    assert ask(tmp_path, request_for(name, b"data")) == b""
    assert list(tmp_path.iterdir()) == []


def test_the_writer_hangs_up_on_a_size_over_its_bound(tmp_path: Path) -> None:
    assert ask(tmp_path, request_for(b"a.png", b"", results_writer.MAX_FILE + 1)) == b""


def test_a_request_that_breaks_off_writes_nothing(tmp_path: Path) -> None:
    assert ask(tmp_path, request_for(b"a.png", b"half", size=8)) == b""
    assert list(tmp_path.iterdir()) == []


def test_the_writer_answers_each_request(tmp_path: Path) -> None:
    twice = request_for(b"a.png", b"one") + request_for(b"a.png", b"two")

    answers = ask(tmp_path, twice)

    assert answers == results_writer.ANSWER.pack(Answer.WRITTEN, 0) + results_writer.ANSWER.pack(
        Answer.EXISTS, 0
    )
    assert (tmp_path / "a.png").read_bytes() == b"one"


def test_the_writer_stops_at_its_number_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_writer, "MAX_FILES", 1)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    writer = FileWriter(fd)
    try:
        assert writer.write("a", b"")[0] is Answer.WRITTEN
        assert writer.write("b", b"")[0] is Answer.FAILED
    finally:
        os.close(fd)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
