"""What the store says no with: a stable code, an HTTP status for the admin API, a sentence."""

from __future__ import annotations

from typing import Final

from tidegate.api import store

STATUS: Final = {
    "invalid": 422,
    "not_found": 404,
    "already_exists": 409,
    "host_taken": 409,
    "last_admin": 409,
    "revision_conflict": 412,
    "route_taken": 409,
    "secret_origin_changed": 409,
    "secret_missing": 409,
    "subscription_state": 409,
    "storage_unavailable": 503,
    "master_key_mismatch": 503,
    "master_key_invalid": 503,
    "schema_newer": 503,
    "schema_outdated": 503,
    "backup_invalid": 422,
}
"""Every code of a `StoreError`, with the status that it has in an HTTP API."""


class StoreError(store.StoreError):
    """A command that was refused or could not be done. Nothing of it was stored.

    The message holds no secret.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message, STATUS[code])
