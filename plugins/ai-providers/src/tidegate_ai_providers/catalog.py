"""`Catalog`: the models of all providers by name, and an upstream for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tidegate.api import Secret, Upstream, upstream_from_url
from tidegate.api.formats import AiCall, TranslationPolicy, find_format
from tidegate.api.models import Model
from tidegate.api.upstream import Codec

from .aws import AwsCredentials
from .google import AccessToken
from .keys import Alarm, KeyState
from .pool import KeyPool
from .source import Provider, ProviderKey, Source
from .wire import AwsSigner, AzureDeployment, GoogleBearer, Sender, Wire

KEPT: Final = 1024
"""Upstreams that are kept. Callers may name any model of an open provider: not all are."""
NO_KEY: Final = ProviderKey("no key", Secret(""))

type Credentials = AwsCredentials | AccessToken


class Catalog:
    """The `Models` of one configuration. `credentials`: of those providers that have no keys."""

    def __init__(
        self,
        source: Source,
        *,
        policy: TranslationPolicy = "drop-and-warn",
        recover: float = 300.0,
        alarm: Alarm = lambda event, text: None,
        credentials: Mapping[str, Credentials] | None = None,
    ) -> None:
        self.providers: dict[str, Provider] = {one.name: one for one in source.providers()}
        self.names = frozenset(self.providers)
        self.aliases: Mapping[str, str] = source.aliases()
        self._policy: TranslationPolicy = policy
        self.credentials: Mapping[str, Credentials] = credentials or {}
        self._listed: dict[tuple[str, str], Model] = {}
        bare: Counter[tuple[str, str]] = Counter()
        for provider in self.providers.values():
            for model in provider.models:
                self._listed[model.id, model.kind] = model
                bare[model.name, model.kind] += 1
        self._bare = {
            (model.name, model.kind): model
            for model in self._listed.values()
            if bare[model.name, model.kind] == 1
        }
        self.states: dict[str, tuple[KeyState, ...]] = {
            name: tuple(
                KeyState(provider.label, key, recover, alarm, self._ready(name))
                for key in provider.keys or (NO_KEY,)
            )
            for name, provider in self.providers.items()
        }
        self._upstreams: dict[tuple[str, str, str], KeyPool] = {}

    def _ready(self, name: str) -> Callable[[], bool] | None:
        held = self.credentials.get(name)
        if held is None:
            return None
        if isinstance(held, AccessToken):
            return lambda: bool(held.value)
        return lambda: held.current() is not None

    def adopt(self, previous: Catalog) -> None:
        """Take over what another catalogue learned of keys that are the same, at the same URL."""
        for name, states in self.states.items():
            before = previous.providers.get(name)
            if before is None or before.url != self.providers[name].url:
                continue
            old = {state.key: state for state in previous.states.get(name, ())}
            for state in states:
                if (known := old.get(state.key)) is not None:
                    state.adopt(known)

    # -- Models ---------------------------------------------------------------------------------

    def find(self, name: str, kind: str = "chat") -> Model | None:
        """The model for `provider/model`, an alias, or a bare name that one provider lists."""
        aliases = self.aliases
        while name in aliases:
            name = aliases[name]
        found = self._listed.get((name, kind))
        if found is not None:
            return found
        prefix, slash, rest = name.partition("/")
        if slash and rest and prefix in self.providers:
            return self.providers[prefix].model(rest, kind)
        return self._bare.get((name, kind))

    def all(self) -> Sequence[Model]:
        """Every model that is listed, in the order of the configuration."""
        return tuple(self._listed.values())

    def upstream(self, model: Model, call: AiCall) -> KeyPool:
        """Where calls of this caller's format go for that model: its keys, its codec."""
        key = (model.provider, model.name, call.format)
        found = self._upstreams.get(key)
        if found is None:
            if len(self._upstreams) >= KEPT:
                self._upstreams.pop(next(iter(self._upstreams)))
            found = self._upstreams[key] = self._make(model, call.format)
        return found

    # -- upstreams ------------------------------------------------------------------------------

    def _codec(self, model: Model, caller: str, id: str) -> Codec:
        """Between a caller's format and the one of the provider's that suits it best.

        LookupError: the provider takes no such calls, or a format is not installed.
        """
        provider = self.providers[model.provider]
        client = find_format(caller)
        if client.kind != "chat":
            spoken = provider.serves.get(client.kind, "")
            if not spoken:
                raise LookupError(f"{provider.label} takes no calls for {client.kind}")
        else:
            spoken = model.format
            if spoken == provider.formats[0]:  # else the model is offered in this one alone
                alike = (one for one in provider.formats if one.partition("/")[0] == caller)
                spoken = next(alike, spoken)
        return client.translation(find_format(spoken), policy=self._policy, model=id)

    def _make(self, model: Model, caller: str) -> KeyPool:
        provider = self.providers[model.provider]
        states = self.states[provider.name]
        id = provider.ids.get(model.name, model.name)
        inner = self._codec(model, caller, id)
        leaves = [
            self._leaf(provider, model, state.key, inner, id, len(states) > 1) for state in states
        ]
        return KeyPool(leaves, states, name=model.id, model=model.name)

    def _leaf(
        self,
        provider: Provider,
        model: Model,
        key: ProviderKey,
        inner: Codec,
        id: str,
        several: bool,
    ) -> Upstream:
        name = f"{model.id} of {provider.team}" if provider.team else model.id
        leaf = upstream_from_url(
            provider.url,
            name=f"{name} ({key.label})" if several else name,
            trusted=provider.trusted,
            headers=fields_of(provider, key),
            timeouts=provider.timeouts,
            weight=key.weight,
            max_connections=provider.max_connections,
        )
        leaf.codec = Wire(inner, provider.name, self._senders(provider, leaf, id))
        return leaf

    def _senders(self, provider: Provider, leaf: Upstream, id: str) -> tuple[Sender, ...]:
        held = self.credentials.get(provider.name)
        out: list[Sender] = []
        if provider.kind == "azure" and provider.api_version:
            out.append(AzureDeployment(id, provider.api_version))
        if isinstance(held, AccessToken):
            out.append(GoogleBearer(held))
        elif isinstance(held, AwsCredentials):
            host = leaf.authority.decode()
            out.append(AwsSigner(held, host=host, base=leaf.path, region=provider.region))
        return tuple(out)


def fields_of(provider: Provider, key: ProviderKey) -> tuple[tuple[bytes, bytes], ...]:
    """The fields of each attempt. The values leave their `Secret` here and nowhere else."""
    fields = [
        (name.encode(), value.get_secret_value().encode()) for name, value in provider.headers
    ]
    secret = key.secret.get_secret_value()
    if secret:
        bearer = provider.auth == "authorization"
        fields.append((provider.auth.encode(), (f"Bearer {secret}" if bearer else secret).encode()))
    return tuple(fields)
