"""The store: commands and queries, each in one transaction, each within a `Scope`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sqlalchemy import or_, select, update

from tidegate.api.keys import SHOWN, new_key
from tidegate.api.store import Actor

from . import tables
from .audit import Anchor, Verdict, verify
from .change import Change, Row, as_row
from .claims import require_free
from .database import Database
from .errors import StoreError
from .kinds import (
    ADMIN,
    APPLICATION,
    KEY,
    KINDS,
    PLATFORM,
    PROVIDER,
    PROVIDER_KEY,
    SERVICE,
    SUBSCRIPTION,
    TEAM,
    Kind,
    Scope,
)
from .queries import Queries, shown
from .specs import KeyRequest, ProviderKeySpec, Spec, SubscriptionSpec, plain
from .vault import Vault, belonging

PAGE: Final = 50
LONGEST_PAGE: Final = 1000


class _TakenBack(Exception):
    """Ends the transaction of a dry run."""


class Store(Queries):
    """One store. Every method is blocking: call it in a thread. Raises StoreError."""

    def __init__(self, database: Database, vault: Vault, anchor: Path) -> None:
        super().__init__(database)
        self.vault = vault
        self.anchor = Anchor(anchor)

    @contextmanager
    def change(self, actor: Actor, *, dry_run: bool = False) -> Iterator[Change]:
        """A transaction for several commands: all of them, or none. `dry_run`: none."""
        with suppress(_TakenBack), self.database.write() as connection:
            change = Change(connection, actor, self.vault)
            yield change
            changed = change.finish()
            if dry_run:
                raise _TakenBack
        if changed and not dry_run:
            with suppress(StoreError):  # it is stored; the anchor follows within a minute
                self.move_anchor()

    # -- commands -----------------------------------------------------------------------------

    def create(self, actor: Actor, scope: Scope, spec: Spec, parent: str = "") -> Row:
        """Make what `spec` describes, as part of `parent` (an id). Teams: platform only."""
        kind = kind_of(spec)
        with self.change(actor) as change:
            if not kind.parent:
                _only_platform(scope, kind)
                return shown(kind, change.create(kind, plain_of(kind, spec)))
            above = change.fetch(_parent(kind), scope, parent)
            if kind is SUBSCRIPTION:
                raise StoreError("invalid", "a subscription is made by `subscribe`")
            values = plain_of(kind, spec)
            if isinstance(spec, ProviderKeySpec):
                values = {"name": spec.name, "sealed": sealed(self.vault, above, spec)}
            row = change.create(kind, values, above)
            if kind is SERVICE and scope.team is not None:
                require_free(change.connection, row)
            return shown(kind, row)

    def update(
        self, actor: Actor, scope: Scope, id: str, spec: Spec, *, revision: int | None = None
    ) -> Row:
        """Make a row as `spec` says. `revision`: what its caller saw, or `revision_conflict`."""
        kind = kind_of(spec)
        with self.change(actor) as change:
            if kind.parent == "" and kind is not TEAM:
                _only_platform(scope, kind)
            row = change.fetch(kind, scope, id)
            values = plain_of(kind, spec)
            if isinstance(spec, ProviderKeySpec):
                provider = change.fetch(PROVIDER, scope, row["provider_id"])
                secret = sealed(self.vault, provider, spec)
                values = {"name": spec.name, "sealed": secret or row["sealed"]}
            if isinstance(spec, KeyRequest):
                values = plain(spec, KeyRequest.model_fields)  # what it is stays: its hash, its end
            new = change.update(kind, row, values, revision)
            moved = kind is SERVICE and any(new[c] != row[c] for c in ("hosts", "route"))
            if moved and scope.team is not None:
                require_free(change.connection, new)
            return shown(kind, new)

    def delete(
        self, actor: Actor, scope: Scope, kind: Kind, id: str, *, revision: int | None = None
    ) -> None:
        """Remove a row and all that is part of it. Teams: platform only."""
        with self.change(actor) as change:
            if not kind.parent:
                _only_platform(scope, kind)
            row = change.fetch(kind, scope, id)
            if kind is ADMIN and len(change.children(ADMIN, None)) == 1:
                raise StoreError("last_admin", "the platform needs an administrator")
            change.delete(kind, row, revision)

    def issue_key(
        self, actor: Actor, scope: Scope, application: str, wanted: KeyRequest
    ) -> tuple[Row, str]:
        """Make a key: its row, and the key itself, which is stored nowhere."""
        with self.change(actor) as change:
            above = change.fetch(APPLICATION, scope, application)
            key = new_key()
            values = plain(wanted) | {"prefix": key[:SHOWN], "hash": self.vault.hash(key)}
            return shown(KEY, change.create(KEY, values, above)), key

    def rotate_key(
        self, actor: Actor, scope: Scope, id: str, name: str, *, overlap: float
    ) -> tuple[Row, str]:
        """A key with the same rights; the old one ends in `overlap` seconds at the latest."""
        with self.change(actor) as change:
            old = change.fetch(KEY, scope, id)
            above = change.fetch(APPLICATION, scope, old["application_id"])
            key = new_key()
            request = KeyRequest(name=name)
            rights: Row = {c: old[c] for c in ("services", "models", "networks")}
            fresh = {"name": request.name, "prefix": key[:SHOWN], "hash": self.vault.hash(key)}
            row = change.create(KEY, rights | fresh, above)
            end = change.at + overlap
            if old["expires"] is None or old["expires"] > end:
                change.update(KEY, old, {"expires": end})
            return shown(KEY, row), key

    def revoke_key(self, actor: Actor, scope: Scope, id: str) -> Row:
        """End a key now. Its row stays, so that its caller can be told."""
        with self.change(actor) as change:
            row = change.fetch(KEY, scope, id)
            ended = {} if row["revoked"] is not None else {"revoked": change.at}
            return shown(KEY, change.update(KEY, row, ended))

    def subscribe(
        self, actor: Actor, scope: Scope, application: str, service: str, reason: str = ""
    ) -> Row:
        """Apply for a service (an id): approved at once where it says so, else requested."""
        with self.change(actor) as change:
            above = change.fetch(APPLICATION, scope, application)
            wanted = change.fetch(SERVICE, PLATFORM, service)
            own = wanted["team_id"] == above["team_id"] or scope.team is None
            if not own and wanted["visibility"] == "private":
                raise StoreError("not_found", "there is no such service")
            auto = wanted["approval"] == "auto"
            spec = SubscriptionSpec(service="x/x", reason=reason)
            values = {
                "status": "approved" if auto else "requested",
                "reason": spec.reason,
                "decision": "",
                "decided_by": "auto" if auto else "",
                "decided": change.at if auto else None,
            }
            places = {"service_id": service, "service_team_id": wanted["team_id"]}
            query = select(tables.subscription).where(
                tables.subscription.c.application_id == application,
                tables.subscription.c.service_id == service,
            )
            row = change.connection.execute(query).mappings().first()
            if row is None:
                return change.create(SUBSCRIPTION, values | places, above)
            if row["status"] in {"requested", "approved"}:
                raise StoreError("subscription_state", f"it is {row['status']} already")
            return change.update(SUBSCRIPTION, as_row(row), values)

    def decide(self, actor: Actor, scope: Scope, id: str, status: str, decision: str = "") -> Row:
        """Approve, reject or revoke a subscription: for the team whose service it is."""
        before = {"approved": "requested", "rejected": "requested", "revoked": "approved"}
        if status not in before:
            raise StoreError("invalid", "a decision is approved, rejected or revoked")
        with self.change(actor) as change:
            row = change.fetch(SUBSCRIPTION, PLATFORM, id)
            if scope.team not in {None, row["service_team_id"]}:
                raise StoreError("not_found", "there is no such subscription")
            if row["status"] != before[status]:
                raise StoreError(
                    "subscription_state", f"it is {row['status']}: not {before[status]}"
                )
            spec = SubscriptionSpec(service="x/x", decision=decision)
            values: Row = {"status": status, "decision": spec.decision}
            values |= {"decided_by": actor.name, "decided": change.at}
            return change.update(SUBSCRIPTION, row, values)

    def secret(self, scope: Scope, id: str) -> str:
        """The secret of a provider's key, to be sent to that provider and nowhere else."""
        with self.database.read() as connection:
            query = select(tables.provider_key).where(
                tables.provider_key.c.id == id, scope.owns(PROVIDER_KEY)
            )
            row = connection.execute(query).mappings().first()
        if row is None:
            raise StoreError("not_found", "there is no such provider_key")
        if row["sealed"] is None:
            raise StoreError("secret_missing", f"the key {row['name']!r} has no secret yet")
        belongs = belonging(row["team_id"], row["provider_id"])
        return self.vault.open(row["sealed"], belongs).decode()

    def used(self, keys: Mapping[str, float]) -> None:
        """Write down when keys were used last. Neither a change nor in the audit."""
        column = tables.credential.c
        if not keys:
            return
        with self.database.write() as connection:
            for id, at in keys.items():
                later = or_(column.last_used.is_(None), column.last_used < at)
                connection.execute(
                    update(tables.credential).where(column.id == id, later).values(last_used=at)
                )

    # -- the audit ----------------------------------------------------------------------------

    def verify(self) -> Verdict:
        """Whether the audit is as it was written."""
        with self.database.read() as connection:
            return verify(connection, self.vault.audit_key, self.anchor)

    def move_anchor(self) -> bool:
        """See `Anchor.move`."""
        with self.database.read() as connection:
            return self.anchor.move(connection)


def kind_of(spec: Spec) -> Kind:
    """The kind that a spec describes."""
    return next(kind for kind in KINDS.values() if issubclass(kind.spec, type(spec)))


def plain_of(kind: Kind, spec: Spec) -> Row:
    """The columns of a row for `spec`."""
    values = plain(spec, kind.spec.model_fields)
    return values | {"route": spec.route} if kind is SERVICE else values  # type: ignore[attr-defined]


def sealed(vault: Vault, provider: Row, spec: ProviderKeySpec) -> str | None:
    """The envelope for the secret that `spec` brings, if it does."""
    if spec.secret is None:
        return None
    belongs = belonging(provider["team_id"], provider["id"])
    return vault.seal(spec.secret.get_secret_value().encode(), belongs)


def _parent(kind: Kind) -> Kind:
    return next(above for above in KINDS.values() if kind in above.children)


def _only_platform(scope: Scope, kind: Kind) -> None:
    if scope.team is not None:
        raise StoreError("not_found", f"there is no such {kind.name}")
