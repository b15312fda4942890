"""`tidegate cache stats|explain|purge|warm`: on the file that the workers share."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from tidegate.api import AddonContext

from .options import CacheConfig, Rule, RuleBook
from .rules.decide import Decision, bypassed, decide
from .rules.fields import Fields
from .rules.messages import Asked, Stored
from .tiers.changes import Purge, Scope
from .tiers.disk import Disk
from .tiers.ledger import Ledger
from .tiers.record import Record
from .tiers.store import figures
from .tiers.writer import transact

AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


def add_to(app: typer.Typer, context: AddonContext, config: CacheConfig) -> None:
    """Add the group: `cache`, or the addon's name where it has one of its own."""
    name = "cache" if context.name == "cache-http" else context.name
    group = typer.Typer(name=name, help="The response cache.", no_args_is_help=True)
    app.add_typer(group)
    verbs = Verbs(context, config)
    group.command("stats")(verbs.stats)
    group.command("explain")(verbs.explain)
    group.command("purge")(verbs.purge)
    group.command("warm")(verbs.warm)


class Verbs:
    """The commands. Each opens the file for itself: it works beside a running gateway."""

    def __init__(self, context: AddonContext, config: CacheConfig) -> None:
        self._context = context
        self._config = config

    @contextmanager
    def _disk(self) -> Iterator[Disk]:
        disk = Disk(self._context.state, self._config.size)
        try:
            yield disk
        finally:
            disk.close()

    def stats(self, as_json: AsJson = False) -> None:
        """Say what the cache holds, and how much room it takes."""
        with self._disk() as disk:
            found = figures(disk)
        if as_json:
            print(json.dumps(found, indent=2))
            return
        rows = {
            "responses": f"{found['entries']:,}",
            "room taken": f"{_size(found['bytes'])} of {_size(found['budget'])}"
            f" ({found['bytes'] / max(1, found['budget']):.1%})",
            "new, not used again yet": _size(found["small_bytes"]),
            "evicted early, up to now": f"{found['evicted_early']:,}",
            "file": f"{_size(found['file_bytes'])}, at most {_size(found['map_bytes'])}",
        }
        for name, value in rows.items():
            print(f"{name:26}{value}")
        print("Hits and misses are counted by the running gateway: see its status or metrics.")

    def explain(
        self,
        url: Annotated[str, typer.Argument(help="The URL as clients ask for it.")],
        header: Annotated[
            list[str], typer.Option("--header", "-H", help='A request field, "Name: value".')
        ] = [],  # noqa: B006, Typer reads it and changes nothing
        method: Annotated[str, typer.Option("--method", "-X", help="Its method.")] = "GET",
        as_json: AsJson = False,
    ) -> None:
        """Say why a request would be answered from the cache, or not; and what is stored."""
        fields = tuple(_field(one) for one in header)
        now = time.time()
        rule, wanted = self._rule(url)
        with self._disk() as disk:
            records = list(_of_url(disk, wanted))
            stamp = disk.shared.stamps[disk.shared.slot(wanted)]
        valid = [record for record in records if record.head.stamp == stamp]
        if as_json:
            print(json.dumps(explained(method, wanted, fields, rule, valid, now), indent=2))
            return
        for line in explain(method, wanted, fields, rule, valid, now):
            print(line)
        if len(valid) < len(records):
            print(f"{len(records) - len(valid)} more were invalidated and are about to go.")

    def purge(
        self,
        url: Annotated[
            str | None, typer.Argument(help="A URL, or with --prefix a beginning.")
        ] = None,
        tag: Annotated[str | None, typer.Option(help="All that has this tag.")] = None,
        prefix: Annotated[bool, typer.Option("--prefix", help="All URLs that begin so.")] = False,
        everything: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
        soft: Annotated[bool, typer.Option("--soft", help="Mark as stale, drop nothing.")] = False,
        as_json: AsJson = False,
    ) -> None:
        """Drop what is stored, on all workers at once; or mark it as stale."""
        if (url is not None) + (tag is not None) + everything != 1:
            raise typer.BadParameter("name a URL, a --tag, or --all")
        scope: Scope = "all" if everything else "tag" if tag else "prefix" if prefix else "url"
        if url is not None:
            value = url.encode() if prefix else self._rule(url)[1]
        else:
            value = (tag or "").encode()
        change = Purge(scope, value, soft=soft)
        with self._disk() as disk:
            transact(disk, lambda ledger: change.run(ledger, disk.shared))
            change.committed(disk.shared)
        if as_json:
            print(json.dumps({"purged": change.count, "scope": scope, "soft": soft}))
        else:
            print(f"{change.count} {'marked as stale' if soft else 'dropped'}")

    def warm(
        self,
        gateway: Annotated[str, typer.Argument(help="Where the gateway is, http://host:port.")],
        urls: Annotated[list[str], typer.Argument(help="URLs to ask it for.")],
        header: Annotated[
            list[str], typer.Option("--header", "-H", help='A request field, "Name: value".')
        ] = [],  # noqa: B006
        as_json: AsJson = False,
    ) -> None:
        """Ask a running gateway for URLs, so that they are stored."""
        answers = []
        failed = False
        for url in urls:
            status, told = _ask(gateway, url, [_field(one) for one in header])
            failed = failed or status >= 400
            answers.append({"url": url, "status": status, "cache_status": told})
            if not as_json:
                print(f"{status} {url} {told}")
        if as_json:
            print(json.dumps(answers, indent=2))
        if failed:
            raise typer.Exit(1)

    def _rule(self, url: str) -> tuple[Rule, bytes]:
        """The rule of a URL, and the URL as it stands in keys."""
        parts = urlsplit(url)
        if not parts.scheme or not parts.netloc:
            raise typer.BadParameter(f"{url!r} is no absolute URL")
        rule = RuleBook(self._config).of(parts.hostname or "", parts.path or "/")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        plain = f"{parts.scheme}://{parts.netloc.lower()}{path}".encode()
        return rule, plain if rule.recipe is None else rule.recipe.url(plain)


def explain(
    method: str, url: bytes, fields: Fields, rule: Rule, records: list[Record], now: float
) -> Iterator[str]:
    """The story of a request, line by line."""
    decision, others = _decided(method, fields, rule, records, now)
    yield f"{method} {url.decode('latin-1')} {_VERDICTS[decision.act]}: {decision.why}."
    for record in records:
        yield f"  {_describe(record.head, now)}"
    if others:
        yield f"  {others} of these scopes belong to one principal each, or to a key recipe."
    if not records:
        yield "  Nothing is stored for it."


def explained(
    method: str, url: bytes, fields: Fields, rule: Rule, records: list[Record], now: float
) -> dict[str, Any]:
    """The same for machines."""
    decision, others = _decided(method, fields, rule, records, now)
    return {
        "method": method,
        "url": url.decode("latin-1"),
        "act": decision.act,
        "why": decision.why,
        "scopes_of_their_own": others,
        "stored": [
            {
                "status": head.status,
                "bytes": head.size,
                "age": head.age_at(now),
                "ttl": head.ttl_at(now),
                "guessed": head.heuristic,
                "purged": head.purged,
                "tags": [tag.decode("latin-1") for tag in head.tags],
                "vary": {n.decode("latin-1"): (v or b"").decode("latin-1") for n, v in head.vary},
            }
            for head in [record.head for record in records]
        ],
    }


_VERDICTS: Final = {
    "serve": "would be answered from the cache",
    "validate": "would be validated with the origin",
    "forward": "would be forwarded to the origin",
    "bypass": "passes the cache by",
    "unavailable": "would be answered with 504",
}


def _decided(
    method: str, fields: Fields, rule: Rule, records: list[Record], now: float
) -> tuple[Decision, int]:
    """What an anonymous request would get, and how many scopes are not for it."""
    asked = Asked(method.encode(), fields)
    decision = bypassed(asked, rule.terms)
    if decision is None:
        open_to_all = [record.head for record in records if not record.key.scope]
        decision = decide(asked, open_to_all, now, rule.terms)
    return decision, len({record.key.scope for record in records} - {b""})


def _size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _describe(head: Stored, now: float) -> str:
    ttl = head.ttl_at(now)
    state = f"fresh for {ttl} s" if ttl > 0 else f"stale for {-ttl} s"
    guess = " (guessed)" if head.heuristic else ""
    vary = ", ".join(f"{n.decode('latin-1')}={(v or b'-').decode('latin-1')}" for n, v in head.vary)
    part = f", bytes {head.part[0]}-{head.part[1]} only" if head.part else ""
    return (
        f"{head.status}, {head.size} bytes{part}, age {head.age_at(now)} s, {state}{guess}"
        + (f", varies on {vary}" if vary else "")
        + (", purged softly" if head.purged else "")
        + (", validated on each use" if head.always_validate else "")
    )


def _of_url(disk: Disk, url: bytes) -> Iterator[Record]:
    with disk.env.begin() as txn:
        ledger = Ledger(disk, txn)
        for record in list(ledger.of_url(url)):
            found = ledger.get(record)
            if found is not None:
                yield found


def _field(text: str) -> tuple[bytes, bytes]:
    name, mark, value = text.partition(":")
    if not mark:
        raise typer.BadParameter(f'{text!r} is no field: write "Name: value"')
    return name.strip().encode(), value.strip().encode()


def _ask(gateway: str, url: str, fields: list[tuple[bytes, bytes]]) -> tuple[int, str]:
    """The status and Cache-Status of a GET for `url`, sent to the gateway."""
    there, parts = urlsplit(gateway), urlsplit(url)
    kind: Any = (
        http.client.HTTPSConnection if there.scheme == "https" else http.client.HTTPConnection
    )
    connection = kind(there.hostname, there.port, timeout=60)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {
            "Host": parts.netloc or there.netloc,
            **{n.decode(): v.decode() for n, v in fields},
        }
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        response.read()
        return response.status, response.headers.get("cache-status", "")
    finally:
        connection.close()
