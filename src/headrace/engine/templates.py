"""What a new sandbox starts from: the templates of this node and their other names."""

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.model.errors import TemplateNotFoundError
from headrace.model.specs import DEFAULT_TEMPLATE


@dataclass(frozen=True, slots=True)
class Template:
    """A root file system that sandboxes are made of."""

    name: str


CODE_INTERPRETER = Template(DEFAULT_TEMPLATE)
"""The host's own programs with the service's Python environment."""


class Templates:
    """All templates by name. Aliases are given from outside: other dialects name them."""

    def __init__(
        self,
        aliases: Mapping[str, str] | None = None,
        templates: tuple[Template, ...] = (CODE_INTERPRETER,),
    ) -> None:
        self._by_name = {template.name: template for template in templates}
        self._aliases = dict(aliases or {})
        for alias, name in self._aliases.items():
            if name not in self._by_name:
                raise TemplateNotFoundError(
                    f"the alias {alias!r} leads to the unknown template {name!r}", template=name
                )

    def find(self, name: str) -> Template:
        """Give the template of that name or alias; raises TemplateNotFoundError."""
        template = self._by_name.get(self._aliases.get(name, name))
        if template is None:
            known = ", ".join(sorted({*self._by_name, *self._aliases}))
            raise TemplateNotFoundError(
                f"unknown template {name!r}; expected one of {known}", template=name
            )
        return template

    def aliases(self, template: Template) -> tuple[str, ...]:
        """Give the other names of a template, sorted."""
        return tuple(
            sorted(alias for alias, name in self._aliases.items() if name == template.name)
        )

    def list(self) -> list[Template]:
        """Give all templates, by name."""
        return sorted(self._by_name.values(), key=lambda template: template.name)
