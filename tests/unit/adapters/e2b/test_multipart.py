"""Forms with files, read in pieces."""

from collections.abc import AsyncIterator

import pytest

from headrace.adapters.e2b.envd.multipart import (
    MAX_PARTS,
    FormEnded,
    FormParser,
    FormReader,
    PartBegan,
    PartData,
    PartEnded,
    read_boundary,
)
from headrace.model.errors import InvalidRequestError

FORM = (
    b"--b\r\n"
    b'Content-Disposition: form-data; name="file"; filename="a/b.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\n"
    b"one\r\n--bx\r\n"
    b"\r\n--b\r\n"
    b'content-disposition: form-data; name="other"\r\n\r\n'
    b"\r\n--b--\r\n"
)


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


async def read(body: bytes, boundary: bytes = b"b") -> list[tuple[str, str | None, bytes]]:
    reader = FormReader(boundary, pieces(body))
    found = []
    while (part := await reader.next_part()) is not None:
        content = b"".join([piece async for piece in reader.content()])
        found.append((part.name, part.filename, content))
    return found


def head(disposition: bytes) -> bytes:
    return b"--b\r\nContent-Disposition: " + disposition + b"\r\n\r\nx\r\n--b--\r\n"


def test_a_form_becomes_events_in_order() -> None:
    parser = FormParser(b"b")

    events = parser.feed(FORM)
    parser.end()

    data = b"".join(each.data for each in events if isinstance(each, PartData))
    assert data == b"one\r\n--bx\r\n"
    assert [each for each in events if not isinstance(each, PartData)] == [
        PartBegan("file", "a/b.txt"),
        PartEnded(),
        PartBegan("other", None),
        PartEnded(),
        FormEnded(),
    ]


async def test_parts_are_read_one_after_the_other() -> None:
    assert await read(FORM) == [("file", "a/b.txt", b"one\r\n--bx\r\n"), ("other", None, b"")]


async def test_what_is_not_read_of_a_part_is_passed_over() -> None:
    reader = FormReader(b"b", pieces(FORM))
    names = []
    while (part := await reader.next_part()) is not None:
        names.append(part.name)

    assert names == ["file", "other"]


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        (b'form-data; name="file"; filename="/etc/x"', "file", "/etc/x"),
        (b'form-data; name="file"; filename="gr\xc3\xbc\xc3\x9f e.txt"', "file", "grüß e.txt"),
        (b'form-data; name="file"; filename="a\\\\b;c=\\"d\\""', "file", 'a\\b;c="d"'),
        (b"form-data; name=file; filename=plain", "file", "plain"),
        (b'FORM-DATA; NAME="file"', "file", None),
        (b"form-data", "", None),
        (b'form-data; name="file"; filename=""', "file", ""),
    ],
)
async def test_names_are_read_as_clients_write_them(
    disposition: bytes, name: str, filename: str | None
) -> None:
    assert await read(head(disposition)) == [(name, filename, b"x")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b"--b",
        b"--b\r\n",
        b"--c\r\n\r\nx\r\n--c--\r\n",
        FORM[:-4],
        FORM.partition(b"--bx")[0],
        b"--b\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\nno colon\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\n: no name\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\nA: " + b"x" * 10_000,
        b"--b\r\n" + b"A: b\r\n" * 100 + b"\r\nx\r\n--b--\r\n",
        head(b"attachment; name=file"),
        head(b'form-data; name="\xff"'),
        head(b'form-data; name="file"; filename="\xff"'),
    ],
)
async def test_what_is_no_form_is_refused_and_not_logged(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidRequestError):
        await read(body)
    assert not caplog.records


async def test_a_file_is_not_complete_if_the_form_breaks_off_behind_it() -> None:
    body = FORM.partition(b'content-disposition: form-data; name="other"')[0]
    reader = FormReader(b"b", pieces(body))
    await reader.next_part()

    with pytest.raises(InvalidRequestError):
        [piece async for piece in reader.content()]


async def test_the_number_of_parts_is_bounded() -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n'
    assert len(await read(part * MAX_PARTS + b"--b--\r\n")) == MAX_PARTS

    with pytest.raises(InvalidRequestError, match="more than 10000 parts"):
        await read(part * (MAX_PARTS + 1) + b"--b--\r\n")


async def test_what_follows_the_form_means_nothing() -> None:
    assert len(await read(FORM + b"--b\r\nrubbish")) == 2


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; charset=x; boundary="a b;c"', b"a b;c"),
        ("Multipart/Form-Data;BOUNDARY=x", b"x"),
    ],
)
def test_the_boundary_is_in_the_header(header: str, boundary: bytes) -> None:
    assert read_boundary(header) == boundary


@pytest.mark.parametrize("header", ["", "multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_needs_a_boundary(header: str) -> None:
    with pytest.raises(InvalidRequestError):
        read_boundary(header)


def test_a_boundary_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        FormParser(b"x" * 300)
