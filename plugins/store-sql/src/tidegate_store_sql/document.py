"""`platform.toml`: the platform as a file. No I/O.

A section that is left out of the file is left as it is; one that is there is all there is of it:
`service = []` in a team means that the team has none.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

import tomlkit
from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from .errors import StoreError
from .specs import (
    ApplicationSpec,
    KeySpec,
    MemberSpec,
    PolicySpec,
    ProviderKeySpec,
    ProviderSpec,
    ServiceSpec,
    Spec,
    SubscriptionSpec,
    TeamSpec,
    User,
    moment,
)

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
TIMES: Final = frozenset({"expires", "revoked", "decided"})


def _from_environment(value: object, info: ValidationInfo) -> object:
    """`${NAME}` for a secret that shall not stand in the file."""
    found = _VARIABLE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    variables: Mapping[str, str] = info.context or {}
    if found[1] not in variables:
        raise ValueError(f"the variable {found[1]} is not set")
    return variables[found[1]]


EnvSecret = Annotated[SecretStr, BeforeValidator(_from_environment)]


class KeyTable(KeySpec):
    """A credential: by its hash, or with the `key` itself, usually `${VARIABLE}`."""

    hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = ""
    key: EnvSecret | None = None

    @model_validator(mode="after")
    def _one(self) -> KeyTable:
        if bool(self.hash) == (self.key is not None):
            raise ValueError("give either `hash` or `key`")
        if self.key is not None and not 16 <= len(self.key.get_secret_value()) <= 512:
            raise ValueError("`key` has 16 to 512 characters")
        return self


class ProviderKeyTable(ProviderKeySpec):
    """A provider's key: its `secret`, usually `${VARIABLE}`, or `sealed` by an export."""

    secret: EnvSecret | None = None
    sealed: str | None = None


class ApplicationTable(ApplicationSpec):
    """An application with its keys and subscriptions."""

    key: tuple[KeyTable, ...] | None = None
    subscription: tuple[SubscriptionSpec, ...] | None = None


class ProviderTable(ProviderSpec):
    """A provider with its keys."""

    key: tuple[ProviderKeyTable, ...] | None = None


class TeamTable(TeamSpec):
    """A team with all that is its own."""

    member: tuple[MemberSpec, ...] | None = None
    service: tuple[ServiceSpec, ...] | None = None
    application: tuple[ApplicationTable, ...] | None = None
    provider: tuple[ProviderTable, ...] | None = None
    policy: tuple[PolicySpec, ...] | None = None


class Document(Spec):
    """The file."""

    admins: tuple[User, ...] | None = None
    team: tuple[TeamTable, ...] | None = None


SECTIONS: Final = {
    "team": ("member", "service", "application", "provider", "policy"),
    "application": ("key", "subscription"),
    "provider": ("key",),
}
"""Fields of a table that hold other tables."""


def parse(text: str, variables: Mapping[str, str]) -> Document:
    """The document of a TOML text. Raises StoreError `invalid` that says where.

    `variables`: what `${NAME}` may stand for.
    """
    try:
        document = Document.model_validate(tomllib.loads(text), context=variables)
    except tomllib.TOMLDecodeError as error:
        raise StoreError("invalid", f"not TOML: {error}") from None
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in one['loc']) or 'file'}: {one['msg']}"
            for one in error.errors(include_input=False, include_url=False)
        ]
        raise StoreError("invalid", "\n".join(lines)) from None
    _check_unique("admins", document.admins or ())
    _check_names("team", document.team)
    return document


def _check_names(where: str, tables: Sequence[Spec] | None) -> None:
    """No name stands twice among siblings: the second would silently win."""
    for table in tables or ():
        name = str(getattr(table, _key(table)))
        place = f"{where} {name}"
        for section in SECTIONS.get(where.rpartition(" ")[2] or where, ()):
            inner = getattr(table, section)
            _check_unique(f"{place}: {section}", [getattr(t, _key(t)) for t in inner or ()])
            _check_names(section, inner)
    _check_unique(where, [getattr(table, _key(table)) for table in tables or ()])


def _key(table: Spec) -> str:
    """The field by which a table is told from its siblings."""
    if isinstance(table, SubscriptionSpec):
        return "service"
    return "user" if isinstance(table, MemberSpec) else "name"


def _check_unique(where: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise StoreError("invalid", f"{where}: {name} stands there twice")
        seen.add(name)


def render(document: Document) -> str:
    """The document as TOML; what has its default value is left out."""
    out = tomlkit.document()
    values = TypeAdapter(Document).dump_python(document, exclude_defaults=True)
    if document.admins:
        out["admins"] = list(document.admins)
    teams = tomlkit.aot()
    for team in values.get("team") or ():
        teams.append(_table("team", team))
    if teams:
        out["team"] = teams
    return tomlkit.dumps(out)


def _table(kind: str, values: Mapping[str, Any]) -> tomlkit.items.Table:
    table = tomlkit.table()
    inner = SECTIONS.get(kind, ())
    for name, value in values.items():
        if name not in inner and value is not None:
            table[name] = _value(name, value)
    for name in inner:
        rows = values.get(name)
        if rows:
            array = tomlkit.aot()
            for row in rows:
                array.append(_table(name, row))
            table[name] = array
    return table


def _value(name: str, value: Any) -> Any:
    if name in TIMES:
        return moment(value)
    if isinstance(value, str) and "\n" in value and "\r" not in value and "'''" not in value:
        return tomlkit.string(value, multiline=True)
    return list(value) if isinstance(value, tuple) else value
