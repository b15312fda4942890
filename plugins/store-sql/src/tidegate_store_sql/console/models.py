"""What the routes of the console answer with: the specs, and what the store adds to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from tidegate_store_sql import specs
from tidegate_store_sql.specs import Instant

Identifier = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$")]


class Stored(BaseModel):
    """What every thing in the store has."""

    id: str
    revision: int
    """Of its last change; it is the `ETag`."""
    created: Instant
    updated: Instant


class Team(specs.TeamSpec, Stored):
    """A tenant."""


class Admin(specs.AdminSpec, Stored):
    """A platform administrator."""


class Member(specs.MemberSpec, Stored):
    """A person in a team."""

    team_id: str


class ListedService(specs.ServiceOutline, Stored):
    """A service as a list has it: without its `docs`."""

    team_id: str


class Service(specs.ServiceSpec, Stored):
    """A published API."""

    team_id: str


class Application(specs.ApplicationSpec, Stored):
    """A consumer of services."""

    team_id: str


class Key(specs.KeyRequest, Stored):
    """A credential of an application, without the key itself."""

    team_id: str
    application_id: str
    prefix: str
    """Its first characters, by which a person recognises it."""
    revoked: Instant | None
    last_used: Instant | None
    """To half a minute."""


class IssuedKey(Key):
    """A credential that was made now."""

    key: str
    """The key itself. It is told this once."""


class KeyRotation(specs.Spec):
    """How a key is replaced."""

    name: specs.Name
    """Of the new key."""
    overlap: Annotated[float, Field(ge=0, le=90 * 86400, allow_inf_nan=False)] = 86400.0
    """Seconds for which the old key goes on."""


class Subscription(Stored):
    """An application's right to a service, or its wish for it."""

    team_id: str
    """Of the application."""
    application_id: str
    application: str
    """`team/name`, as `service`."""
    service_id: str
    service_team_id: str
    service: str
    status: specs.Status
    reason: str
    decision: str
    """What was said when it was decided."""
    decided_by: str
    decided: Instant | None


class SubscriptionRequest(specs.Spec):
    """An application's wish for a service."""

    application_id: Identifier
    service_id: Identifier
    reason: specs.Words = ""


class Decision(specs.Spec):
    """What is said with a decision."""

    decision: specs.Words = ""


class Provider(specs.ProviderSpec, Stored):
    """Where models come from."""

    team_id: str


class ProviderKey(Stored):
    """A secret of a provider, which is never told."""

    team_id: str
    provider_id: str
    name: str
    has_secret: bool


class Policy(specs.PolicySpec, Stored):
    """A named policy of a team: what must hold on exchanges of its services."""

    team_id: str


class Offer(BaseModel):
    """A service in the catalogue: what a consumer of it needs to know."""

    id: str
    ref: str
    """`team/name`."""
    team_id: str
    team: str
    name: str
    title: str
    kind: Literal["rest", "ai"]
    hosts: list[str]
    path: str
    methods: list[str] | None
    visibility: Literal["private", "internal", "public"]
    approval: Literal["auto", "manual"]
    anonymous: bool
    models: list[str] | None
    operations: list[str] | None


class DocumentedOffer(Offer):
    """A service in the catalogue with its documentation."""

    docs: str
    """OpenAPI, JSON or YAML; "" where it has none."""


class AuditEntry(BaseModel):
    """A change: by whom, when and from where. Secrets are masked."""

    seq: int
    at: Instant
    actor: str
    source: str
    request_id: str
    team_id: str
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    mac: str
    """It chains this entry to those before."""


class Verdict(BaseModel):
    """Whether the audit is as it was written."""

    good: int
    """How many entries are, from the first on."""
    bad: int | None
    """The first that is not."""
    reason: str


class ApplyRequest(specs.Spec):
    """A platform as a file."""

    document: Annotated[str, Field(max_length=8_000_000)]
    """TOML, as `tidegate export` writes it. `${VARIABLE}` is not read here."""
    dry_run: bool = False
    prune: bool = False
    """Remove what the document says nothing of."""


class Change(BaseModel):
    """What an apply changes."""

    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class Applied(BaseModel):
    """What an apply changed, or would change."""

    dry_run: bool
    changes: list[Change]


def told[M: BaseModel](model: type[M], row: Mapping[str, Any], **more: Any) -> M:
    """A row as a model has it."""
    values = {name: row[name] for name in model.model_fields if name in row}
    return model.model_validate(values | more)
