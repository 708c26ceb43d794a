"""No method of the SDKs is forgotten, and the documents tell the truth about them."""

from pathlib import Path

import pytest

from tests.compat.e2b.faces import Face, cases_of
from tests.compat.e2b.methods import (
    BEGIN,
    NOT_OFFERED,
    ask_sdks,
    offered,
    render_table,
    table_in,
)
from tests.support.vendor_cases import covered

pytestmark = [pytest.mark.compat]

DOCUMENT = Path(__file__).parents[3] / "docs" / "e2b.md"


@pytest.mark.timeout(300)
def test_the_record_has_the_methods_of_the_sdks() -> None:
    assert offered() == ask_sdks()


@pytest.mark.parametrize("face", Face)
def test_every_method_is_covered_by_a_test_or_named_as_not_offered(face: Face) -> None:
    tested = covered(cases_of(face))

    assert [name for name in offered()[face] if (name in tested) == (name in NOT_OFFERED)] == []


@pytest.mark.parametrize("face", Face)
def test_tests_name_methods_that_there_are(face: Face) -> None:
    assert sorted(covered(cases_of(face)).keys() - set(offered()[face])) == []


@pytest.mark.parametrize("face", Face)
def test_no_two_tests_of_a_file_have_one_name(face: Face) -> None:
    names = [str(case) for case in cases_of(face)]

    assert len(names) == len(set(names))


def test_the_document_has_the_table() -> None:
    assert table_in(DOCUMENT) == render_table(), (
        f"docs/e2b.md has another table at {BEGIN}; write it with: "
        "python -m tests.compat.e2b.methods"
    )
