"""Templates and their other names."""

import pytest

from headrace.engine.templates import CODE_INTERPRETER, Templates
from headrace.model.errors import TemplateNotFoundError


def test_the_default_template_is_known() -> None:
    assert Templates().find("code-interpreter") is CODE_INTERPRETER
    assert Templates().list() == [CODE_INTERPRETER]


def test_an_alias_leads_to_its_template() -> None:
    assert Templates({"base": "code-interpreter"}).find("base") is CODE_INTERPRETER


def test_an_unknown_template_is_named_with_the_known_ones() -> None:
    with pytest.raises(TemplateNotFoundError, match=r"'nope'.*base, code-interpreter"):
        Templates({"base": "code-interpreter"}).find("nope")


def test_an_alias_of_nothing_is_refused() -> None:
    with pytest.raises(TemplateNotFoundError, match="'gone'"):
        Templates({"base": "gone"})


def test_a_template_tells_its_other_names() -> None:
    templates = Templates({"z": "code-interpreter", "base": "code-interpreter"})

    assert templates.aliases(templates.find("z")) == ("base", "z")
