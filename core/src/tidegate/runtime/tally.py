"""What addons in shadow mode would have done, counted: by addon, principal and decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tidegate.api.exchange import Exchange

from .entry import AddonEntry

ROWS: Final = 2000
"""Rows of one worker. Beyond it, principals that are new are counted together."""
EXAMPLES: Final = 5
OTHERS: Final = "(others)"
ANONYMOUS: Final = "(anonymous)"


@dataclass(slots=True)
class Row:
    """How often one addon would have done one thing to one principal's exchanges."""

    addon: str
    scope: str
    principal: str
    phase: str
    decision: str
    count: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


class ShadowTally:
    """The rows of a worker, since it started. Bounded."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, ...], Row] = {}

    def add(self, exchange: Exchange, addons: Sequence[AddonEntry], since: int = 0) -> None:
        """Count the shadow decisions of an exchange that has ended, from the `since`-th on."""
        principal = ANONYMOUS if exchange.principal is None else exchange.principal.id
        for shadow in exchange.shadows[since:]:
            scope = next((str(a.scope) for a in addons if a.name == shadow.addon), "")
            row = self.row(shadow.addon, scope, principal, shadow.phase, shadow.decision)
            row.count += 1
            if len(row.examples) < EXAMPLES:
                row.examples.append(
                    {
                        "request_id": exchange.id,
                        "method": exchange.request.data.method.decode("latin-1"),
                        "path": exchange.path,
                        "status": exchange.status,
                        "detail": shadow.detail,
                    }
                )

    def row(self, addon: str, scope: str, principal: str, phase: str, decision: str) -> Row:
        """The row to count in."""
        key = (addon, scope, principal, phase, decision)
        row = self._rows.get(key)
        if row is None:
            if len(self._rows) >= ROWS and principal != OTHERS:
                return self.row(addon, scope, OTHERS, phase, decision)
            row = self._rows[key] = Row(*key)
        return row

    def to_json(self) -> list[dict[str, Any]]:
        """The rows, the largest count first."""
        rows = sorted(self._rows.values(), key=lambda row: -row.count)
        return [row.to_json() for row in rows]
