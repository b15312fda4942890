"""Providers of teams: they stand in the platform's store, and serve their team's calls alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tidegate.api import Exchange
from tidegate.api.formats import AiCall, find_format
from tidegate.api.models import Model
from tidegate.api.platform import SNAPSHOT, StoredProvider

from .catalog import Catalog
from .config import ProviderConfig, reason_of
from .known import known
from .pool import KeyPool
from .source import CLOUD_KEYS, Provider, Source, resolve

NOTHING: Final = Path("/nonexistent")
"""Relative paths of a team's providers would start here; there are none."""


class TeamSource:
    """What a team has in the store.

    Nothing of the node's is used for it: no variable, no file, no credentials of its machine. Its
    addresses are the team's word: those that are not public are refused when they are dialled,
    but for `hosts` (patterns), of which the operator says that they are right.
    """

    def __init__(
        self, team: str, stored: Sequence[StoredProvider], hosts: Sequence[str] = ()
    ) -> None:
        self.off: dict[str, str] = {}
        """Providers that are not on, and why."""
        self._providers: list[Provider] = []
        for one in stored:
            try:
                self._providers.append(provider_of(team, one, hosts))
            except ValueError as error:
                self.off[one.name] = reason_of(error)

    def providers(self) -> Sequence[Provider]:
        return self._providers

    def aliases(self) -> Mapping[str, str]:
        return {}


def provider_of(team: str, stored: StoredProvider, hosts: Sequence[str]) -> Provider:
    """A stored provider as the others are. Raises ValueError: why it is not on."""
    keys = [{"name": key.name, "key": key.secret} for key in stored.keys if key.secret]
    if stored.keys and not keys:
        raise ValueError("none of its keys has a secret that opens here")
    like = stored.kind if stored.kind in known() else ""
    config = ProviderConfig.model_validate(
        {
            "name": stored.name,
            "like": like,
            "kind": None if like else stored.kind,
            "url": stored.url,
            "keys": keys,
            "models": stored.models,
        }
    )
    kind = known()[like].kind if like else stored.kind
    if kind in CLOUD_KEYS and not keys:
        raise ValueError("it needs a key: the credentials of this machine are not a team's")
    made = resolve(config, {}, NOTHING)
    if isinstance(made, str):
        raise ValueError(made)
    for format in (*made.formats, *made.serves.values()):
        try:
            find_format(format)
        except LookupError as error:
            raise ValueError(str(error)) from None
    host = urlsplit(stored.url).hostname or ""
    return replace(
        made,
        team=team,
        trusted=any(fnmatchcase(host, pattern) for pattern in hosts),
        models=tuple(replace(model, team=team) for model in made.models),
    )


class TeamModels:
    """The `Models` of a team: its own providers, then everyone's whose names it does not use."""

    def __init__(self, own: Catalog, shared: Catalog, names: frozenset[str]) -> None:
        self._own = own
        self._shared = shared
        self._hidden = names
        self.names = names | shared.names
        seen = {name: one for name, one in shared.providers.items() if name not in names}
        self.providers: Mapping[str, Provider] = {**own.providers, **seen}
        self.aliases = shared.aliases

    def find(self, name: str, kind: str = "chat") -> Model | None:
        """See `Models.find`. The team's own come first, and hide everyone's of the same name."""
        aliases = self.aliases
        while name in aliases:
            name = aliases[name]
        found = self._own.find(name, kind)
        if found is None:
            found = self._shared.find(name, kind)
            if found is not None and found.provider in self._hidden:
                return None
        return found

    def all(self) -> Sequence[Model]:
        """See `Models.all`."""
        hidden = self._hidden
        shared = (model for model in self._shared.all() if model.provider not in hidden)
        return (*self._own.all(), *shared)

    def upstream(self, model: Model, call: AiCall) -> KeyPool:
        """See `Models.upstream`."""
        return (self._own if model.team else self._shared).upstream(model, call)


type Catalogue = Catalog | TeamModels


@dataclass(frozen=True, slots=True)
class Held:
    """What was made of a team's providers."""

    stored: tuple[StoredProvider, ...]
    own: Catalog
    models: TeamModels
    off: Mapping[str, str]
    """Those that are not on, and why."""


class Teams:
    """Whose models an exchange sees: `shared` everyone, and those of the caller's team.

    A team's are made at its first call after a change in the store, and go on with what was
    learned of the keys that are the same.
    """

    def __init__(
        self,
        shared: Catalog,
        hosts: Sequence[str],
        make: Callable[[Source], Catalog],
        tell: Callable[[str], None],
    ) -> None:
        self.shared = shared
        self._hosts = hosts
        self._make = make
        self._tell = tell
        self._held: dict[str, Held] = {}
        self._before: dict[str, Held] = {}

    def of(self, exchange: Exchange) -> Catalogue:
        """The models that the caller of an exchange may use."""
        principal = exchange.principal
        if principal is None or not principal.team:
            return self.shared
        snapshot = exchange.stashed(SNAPSHOT)
        if snapshot is None:
            return self.shared
        stored = snapshot.providers.get(principal.team)
        held = self._held.get(principal.team)
        if stored is None:
            if held is not None:
                del self._held[principal.team]  # and its keys with it
            return self.shared
        if held is None or held.stored is not stored:
            held = self._held[principal.team] = self.made(principal.team, stored)
            for name, reason in held.off.items():
                self._tell(f"the provider {name} of {principal.team} is off: {reason}")
        return held.models

    def made(self, team: str, stored: tuple[StoredProvider, ...]) -> Held:
        """The upstreams of a team's providers."""
        source = TeamSource(team, stored, self._hosts)
        own = self._make(source)
        before = self._held.get(team) or self._before.pop(team, None)
        if before is not None:
            own.adopt(before.own)
        names = frozenset(one.name for one in stored)
        return Held(stored, own, TeamModels(own, self.shared, names), source.off)

    def adopt(self, previous: Teams) -> None:
        """Take over what was learned of keys by the addon that this one replaces."""
        self.shared.adopt(previous.shared)
        self._before = previous._held
