"""What the command line accepts as programs and settings, and how it refuses the rest."""

import os
from pathlib import Path

import pytest

from headrace.cli import sources
from headrace.cli.sources import Source
from headrace.model.errors import InvalidRequestError
from headrace.model.specs import MAX_CODE, Language


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("a.py", Language.PYTHON),
        ("a.js", Language.JAVASCRIPT),
        ("a.mjs", Language.JAVASCRIPT),
        ("a.ts", Language.TYPESCRIPT),
        ("a.sh", Language.BASH),
        ("a.r", Language.R),
        ("a.R", Language.R),
        ("A.java", Language.JAVA),
        ("dir.js/a.py", Language.PYTHON),
        ("-", Language.PYTHON),
    ],
)
def test_the_language_follows_the_suffix(name: str, language: Language) -> None:
    assert sources.language_of(name) is language


@pytest.mark.parametrize(
    ("name", "named"), [("a.txt", "'.txt'"), ("Makefile", "no suffix"), (".py", "no suffix")]
)
def test_an_unknown_suffix_is_refused_with_the_known_ones(name: str, named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named) as caught:
        sources.language_of(name)

    assert ".mjs" in caught.value.message
    assert "--language" in caught.value.message


def test_a_file_becomes_a_source_with_its_name_and_language(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_bytes("print('ä')\r\n".encode())

    assert sources.read_sources([str(path)], None, None) == [
        Source(str(path), Language.PYTHON, "print('ä')\r\n")
    ]


def test_several_files_keep_their_order(tmp_path: Path) -> None:
    for name in ("b.py", "a.sh"):
        (tmp_path / name).write_text(name)

    found = sources.read_sources([str(tmp_path / "b.py"), str(tmp_path / "a.sh")], None, None)

    assert [source.code for source in found] == ["b.py", "a.sh"]


def test_a_chosen_language_holds_for_every_file(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("echo 1")

    (found,) = sources.read_sources([str(tmp_path / "script")], None, "bash")

    assert found.language is Language.BASH


def test_code_on_the_command_line_is_python_unless_said() -> None:
    assert sources.read_sources([], "1+1", None) == [Source("-c", Language.PYTHON, "1+1")]
    assert sources.read_sources([], "1+1", "javascript")[0].language is Language.JAVASCRIPT


def test_empty_code_on_the_command_line_is_code() -> None:
    assert sources.read_sources([], "", None)[0].code == ""


def test_a_byte_order_mark_is_not_part_of_the_code(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"\xef\xbb\xbfx = 1")

    assert sources.read_code(str(tmp_path / "a.py")) == "x = 1"


def test_standard_input_is_read_to_its_end() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"print(1)")
    os.close(write_end)
    saved = os.dup(0)
    os.dup2(read_end, 0)
    try:
        assert sources.read_code("-") == "print(1)"
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(read_end)


@pytest.mark.parametrize(
    ("files", "code", "language", "named"),
    [
        ([], None, None, "nothing to run"),
        (["-", "-"], None, None, "once only"),
        (["a.py"], "1", None, "'a.py'"),
        (["a.py"], None, "cobol", "'cobol'"),
        (["missing.py"], None, None, "'missing.py': No such file"),
        (["/usr"], None, "python", "'/usr': Is a directory"),
        (["a\0b.py"], None, None, "NUL"),
        ([], "a\0b", None, "NUL character at 1"),
    ],
)
def test_bad_input_is_refused_by_name(
    files: list[str], code: str | None, language: str | None, named: str
) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        sources.read_sources(files, code, language)


def test_a_file_that_is_not_utf_8_is_refused_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"x = '\xff'")

    with pytest.raises(InvalidRequestError, match="not UTF-8: byte 0xff at offset 5"):
        sources.read_code(str(tmp_path / "a.py"))


def test_a_file_with_a_nul_is_refused_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"x\0")

    with pytest.raises(InvalidRequestError, match=r"a\.py' contains a NUL character at 1"):
        sources.read_code(str(tmp_path / "a.py"))


def test_a_file_over_16_mib_is_refused_and_one_of_16_mib_is_not(tmp_path: Path) -> None:
    (tmp_path / "large.py").write_bytes(b"#" * (MAX_CODE + 1))
    (tmp_path / "fits.py").write_bytes(b"#" * MAX_CODE)

    with pytest.raises(InvalidRequestError, match=r"large\.py' is too long: .*\(16 MiB\)"):
        sources.read_code(str(tmp_path / "large.py"))
    assert len(sources.read_code(str(tmp_path / "fits.py"))) == MAX_CODE


def test_environment_items_are_split_at_the_first_equals_sign() -> None:
    assert sources.parse_env(["A=1", "B=x=y", "C=", "A=2"]) == {"A": "2", "B": "x=y", "C": ""}


@pytest.mark.parametrize("item", ["A", "=1", "1A=1", "A-B=1", "A=\udcff", "A=\0"])
def test_a_bad_environment_item_is_refused(item: str) -> None:
    with pytest.raises(InvalidRequestError):
        sources.parse_env([item])


@pytest.mark.parametrize(("text", "seconds"), [("5", 5.0), ("0.25", 0.25), (None, None)])
def test_a_timeout_is_a_number_of_seconds(text: str | None, seconds: float | None) -> None:
    assert sources.parse_timeout(text) == seconds


@pytest.mark.parametrize("text", ["soon", "", "0", "-1", "nan", "inf", "1e99", "5s"])
def test_a_bad_timeout_is_refused_with_its_value(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="--timeout"):
        sources.parse_timeout(text)


def test_names_may_be_repeated_or_joined_by_commas() -> None:
    assert sources.parse_names(["memory,cpu", " seccomp ", ","]) == {"memory", "cpu", "seccomp"}
