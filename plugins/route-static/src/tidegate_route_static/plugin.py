"""The addon: upstreams are built when the configuration is loaded; an exchange only looks up."""

from __future__ import annotations

from pathlib import Path

from tidegate.api import (
    ROUTE_PARAMS,
    AddonContext,
    Denial,
    Exchange,
    NotAllowed,
    Plugin,
    RouteTable,
    Timeouts,
    Tls,
    Upstream,
    hook,
    upstream_from_url,
)
from tidegate.api.balance import Balanced, Failover, Retry, sticky_by
from tidegate.api.errors import METHOD_NOT_ALLOWED

from .config import Headers, Route, RouteStaticConfig


class RouteStatic(Plugin[RouteStaticConfig]):
    """Routes by host, path and method, from the configuration."""

    Config = RouteStaticConfig

    def __init__(self, config: RouteStaticConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._table = RouteTable(
            [
                route.entry(build(route, files(route, f"routes.{number}", context.base)))
                for number, route in enumerate(config.routes)
            ]
        )

    @hook
    def route(self, exchange: Exchange) -> Upstream | Denial | None:
        """The upstream of the route that matches; 405 where only the method does not."""
        method = exchange.request.data.method.decode("latin-1")
        match = self._table.match(exchange.host, exchange.path, method)
        if match is None:
            return None
        if isinstance(match, NotAllowed):
            return METHOD_NOT_ALLOWED.denial(headers=(("allow", ", ".join(match.methods)),))
        if match.params:
            exchange.stash[ROUTE_PARAMS] = match.params
        return match.value

    def explain(self, hook: str, exchange: Exchange) -> str:
        """Which routes it has."""
        routes = self.config.routes
        names = [f"{'' if route.host == '*' else route.host}{route.path}" for route in routes[:8]]
        more = f" and {len(routes) - 8} more" if len(routes) > 8 else ""
        return f"routes {', '.join(names)}{more}"


def files(route: Route, where: str, base: Path) -> Tls:
    """The TLS options, with whole paths. Raises ValueError for a file that is not there."""
    paths: dict[str, str | None] = {}
    for option in ("ca", "cert", "key"):
        name = getattr(route, option)
        paths[option] = None if name is None else str(base / name)
        if name is not None and not (base / name).is_file():
            raise ValueError(f"{where}.{option} (route {route.path}): there is no file {name!r}")
    return Tls(ca=paths["ca"], sni=route.sni, certificate=paths["cert"], key=paths["key"])


def build(route: Route, tls: Tls) -> Upstream:
    """The upstream of a route: a leaf, or leaves in a pool, with retries, in a chain."""
    name = route.name or f"{'' if route.host == '*' else route.host}{route.path}"

    def leaf(url: str, headers: Headers, weight: int = 1) -> Upstream:
        return upstream_from_url(
            url,
            weight=weight,
            headers=wire(headers),
            strip=prefix(route) if route.strip else "",
            preserve_host=route.preserve_host,
            timeouts=timeouts(route),
            tls=tls,
            websocket=route.websocket,
            safe_to_retry=route.safe_to_retry,
            max_connections=route.max_connections,
        )

    leaves = [leaf(member.url, route.headers, member.weight) for member in route.members]
    several = len(leaves) > 1
    upstream = leaves[0]
    if several:
        sticky = sticky_by(route.sticky) if route.sticky is not None else None
        upstream = Balanced(leaves, name=name, sticky=sticky)
    retries = int(several) if route.retries is None else route.retries
    if retries or several:
        upstream = Retry(upstream, retries=retries)
    if route.failover:
        backups = [
            leaf(backup.url, route.headers if backup.headers is None else backup.headers)
            for backup in route.failover
        ]
        upstream = Failover([upstream, *backups], name=name)
    return upstream


def prefix(route: Route) -> str:
    """What `strip` removes from the path: the literal prefix that the route matches."""
    return route.path if route.exact else route.path.removesuffix("/*").removesuffix("/")


def timeouts(route: Route) -> Timeouts:
    """Those of the route. `timeout` bounds silence, not the length of an answer."""
    if route.timeouts is not None:
        return Timeouts(**route.timeouts.model_dump())
    if route.timeout is not None:
        silent = route.timeout
        return Timeouts(connect=min(Timeouts().connect, silent), first_byte=silent, idle=silent)
    return Timeouts()


def wire(headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
    """Fields as they are sent. The values leave their `Secret` here and nowhere else."""
    return tuple(
        (name.encode(), secret.get_secret_value().encode()) for name, secret in headers.items()
    )
