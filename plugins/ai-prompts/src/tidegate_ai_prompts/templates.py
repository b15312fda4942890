"""The templates of one version: checked when they are loaded, rendered within bounds.

MiniJinja reads no files, calls nothing of Python, and counts its steps: a template that does too
much stops with an error, and can't take the memory that it would need for it.
"""

from __future__ import annotations

from typing import Final

from minijinja import Environment, TemplateError

from .options import Json, Version

LONGEST: Final = 4 * 1024 * 1024
"""Characters of a rendered part."""


class BrokenTemplate(ValueError):
    """A template that can't be used. `source` is the line of it that is wrong, or ""."""

    def __init__(self, part: str, reason: str, source: str = "") -> None:
        super().__init__(f"`{part}`: {reason}")
        self.source = source


class RenderError(ValueError):
    """A template that failed on these variables."""


class Templates:
    """`system` and `user` of a version. Raises BrokenTemplate."""

    def __init__(self, version: Version, fuel: int) -> None:
        self._environment = Environment(
            undefined_behavior="strict", fuel=fuel, auto_escape_callback=lambda name: False
        )
        parts = {"system": version.system, "user": version.user}
        self._optional = [n for n, v in version.variables.items() if not v.is_required]
        for part, source in parts.items():
            if source is not None:
                self._add(part, source, version)

    def _add(self, part: str, source: str, version: Version) -> None:
        try:
            self._environment.add_template(part, source)
            used = self._environment.undeclared_variables_in_template(part)
        except TemplateError as error:
            lines = source.splitlines()
            line = error.line or 0
            wrong = lines[line - 1] if 0 < line <= len(lines) else ""
            raise BrokenTemplate(part, error.detail or error.message, wrong) from None
        known = {*version.variables, *self._environment.globals}
        for name in sorted(used - known):
            wrong = next((line for line in source.splitlines() if name in line), "")
            raise BrokenTemplate(part, f"{name!r} is not a variable of this prompt", wrong)

    def render(self, part: str, variables: Json) -> str:
        """The text of a part. Raises RenderError."""
        values: Json = dict.fromkeys(self._optional) | variables
        try:
            text = self._environment.render_template(part, **values)
        except TemplateError as error:
            raise RenderError(f"the template {part!r} failed: {error.message}") from None
        if len(text) > LONGEST:
            raise RenderError(f"the template {part!r} made more than {LONGEST} characters")
        return text
