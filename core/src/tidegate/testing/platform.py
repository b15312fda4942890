"""A platform in memory, for tests of plugins that ask what the platform's store says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tidegate.api import Exchange, Match, NotAllowed, Principal, RouteEntry, RouteTable
from tidegate.api.platform import (
    SERVICE,
    SNAPSHOT,
    Application,
    Consumer,
    Grant,
    Service,
    StoredProvider,
    Team,
)

__all__ = ["Platform", "make_consumer"]


class Platform:
    """A `tidegate.api.platform.Snapshot` of what it is given.

    `keys` are consumers by their credential, `grants` pairs of an application and a service.
    """

    def __init__(
        self,
        *services: Service,
        keys: Mapping[str, Consumer] | None = None,
        grants: Iterable[tuple[Application, Service]] = (),
        providers: Mapping[str, tuple[StoredProvider, ...]] | None = None,
        revision: int = 1,
    ) -> None:
        self.revision = revision
        self.providers = providers or {}
        self._keys = keys or {}
        applications = {consumer.application for consumer in self._keys.values()}
        self._grants: dict[tuple[str, str], Grant] = {}
        for number, (application, service) in enumerate(grants):
            grant = Grant(f"grant-{number}", application.id, service.id, 0.0)
            self._grants[application.id, service.id] = grant
            applications.add(application)
        self._applications = {(a.team.name, a.name): a for a in applications}
        self._routes = RouteTable(
            RouteEntry(service, host, service.path, methods=service.methods)
            for service in services
            for host in service.hosts or ("*",)
        )

    def put(self, exchange: Exchange) -> Exchange:
        """Put it on an exchange, with the service that the exchange is for."""
        exchange.stash[SNAPSHOT] = self
        method = exchange.request.data.method.decode("latin-1")
        service = self.service(exchange.host, exchange.path, method)
        if service is not None:
            exchange.stash[SERVICE] = service
            exchange.anonymous = service.anonymous
        return exchange

    def service(self, host: str, path: str, method: str) -> Service | None:
        """See `Snapshot.service`."""
        found = self._routes.match(host, path, method)
        return found.value if isinstance(found, Match) else None

    def methods(self, host: str, path: str, method: str) -> tuple[str, ...]:
        """See `Snapshot.methods`."""
        found = self._routes.match(host, path, method)
        return found.methods if isinstance(found, NotAllowed) else ()

    def application(self, team: str, name: str) -> Application | None:
        """See `Snapshot.application`."""
        return self._applications.get((team, name))

    def consumer(self, credential: str) -> Consumer | None:
        """See `Snapshot.consumer`."""
        return self._keys.get(credential)

    def grant(self, application: str, service: str) -> Grant | None:
        """See `Snapshot.grant`."""
        return self._grants.get((application, service))


def make_consumer(name: str = "shop", team: str = "web", **limits: object) -> Consumer:
    """A key of an application; `limits` are the other fields of a `Consumer`."""
    application = Application(f"{team}/{name}", name, Team(team, team))
    principal = Principal(name, team, {"key": "tg_shop1"})
    return Consumer(principal, application, f"key of {name}", "tg_shop1", **limits)  # type: ignore[arg-type]
