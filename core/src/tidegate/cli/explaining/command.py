"""A request as people write it down: `GET /path`, a URL, or a curl command. No I/O but `@file`."""

from __future__ import annotations

import shlex
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote_plus, urlsplit

from tidegate.runtime.problems import ConfigError, Problem

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})

_VALUED: Final = {
    "-X": "request", "-H": "header", "-d": "data", "-u": "user", "-b": "cookie", "-A": "agent",
    "-e": "referer", "-F": "form", "-r": "range",
    "--request": "request", "--header": "header", "--data": "data", "--data-ascii": "data",
    "--data-binary": "binary", "--data-raw": "raw", "--data-urlencode": "encoded",
    "--json": "json", "--user": "user", "--cookie": "cookie", "--user-agent": "agent",
    "--referer": "referer", "--form": "form", "--range": "range", "--url": "url",
    "--oauth2-bearer": "bearer",
}  # fmt: skip
"""Options that take a value and say something of the request."""
_FLAGS: Final = {"-G": "get", "--get": "get", "-I": "head", "--head": "head",
                 "--compressed": "compressed", "-0": "http10", "--http1.0": "http10"}  # fmt: skip
_IGNORED: Final = frozenset(
    """
    -k --insecure -s --silent -S --show-error -v --verbose -i --include -L --location -N --no-buffer
    -f --fail --fail-with-body -g --globoff -# --progress-bar -O --remote-name -4 -6 -J -n --netrc
    --http1.1 --http2 --http2-prior-knowledge --tlsv1.2 --tlsv1.3 --no-progress-meter -q --raw
    --path-as-is --tcp-nodelay --no-keepalive
    """.split()  # noqa: SIM905, a list would be long
)
_IGNORED_VALUED: Final = frozenset(
    """
    -o --output -w --write-out -m --max-time --connect-timeout -x --proxy --noproxy --resolve
    --connect-to --cacert --capath -E --cert --key --retry --retry-delay --max-redirs -c -C -K -U
    --cookie-jar -D --dump-header --limit-rate --interface --ciphers --stderr
    """.split()  # noqa: SIM905
)


@dataclass(slots=True)
class Command:
    """The request that is asked about. `headers` holds neither Host nor Content-Length."""

    method: str = ""
    target: str = "/"
    host: str = ""
    tls: bool = False
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    version: bytes = b"HTTP/1.1"

    def has(self, name: str) -> bool:
        """Whether a field is there already."""
        return any(key.lower() == name for key, _ in self.headers)

    def default(self, name: str, value: str) -> None:
        """Set a field unless the command did."""
        if not self.has(name):
            self.headers.append((name, value))

    def aim(self, url: str) -> None:
        """Take host and target from a URL, with or without scheme, or from a path."""
        if url.startswith("/"):
            self.target = url
            return
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if not parts.netloc or parts.scheme not in ("http", "https"):
            raise refused(f"{url!r} is not an http URL")
        self.tls = parts.scheme == "https"
        self.host = parts.netloc.rpartition("@")[2]
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def refused(text: str) -> ConfigError:
    """What is wrong with the request that was given."""
    return ConfigError(Problem("invalid_request", text))


def plain(words: list[str], headers: list[str], data: str | None, host: str) -> Command:
    """The command of `tidegate explain [METHOD] PATH-OR-URL -H … -d …`."""
    command = Command()
    if len(words) == 2:
        command.method = words[0].upper()
        if not command.method.isalpha():
            raise refused(f"{words[0]!r} is not a method")
    elif words[0].upper() in METHODS:
        words = [words[0], "/"]
        command.method = words[0].upper()
    command.aim(words[-1])
    for text in headers:
        add_header(command, text)
    if data is not None:
        command.body = load(data)
        is_json = command.body.lstrip()[:1] in (b"{", b"[")
        kind = "application/json" if is_json else "application/x-www-form-urlencoded"
        command.default("content-type", kind)
    command.method = command.method or ("POST" if data is not None else "GET")
    command.host = host or command.host or "localhost"
    return command


def curl(text: str) -> Command:
    """The request that a curl command sends. Raises ConfigError where it can't be told."""
    try:
        words = shlex.split(text.replace("\\\r\n", " ").replace("\\\n", " "))
    except ValueError as error:
        raise refused(f"the curl command: {error} (is a quote missing?)") from None
    if not words or words[0].rpartition("/")[2] != "curl":
        raise refused("this is not a curl command")
    options, urls = split_options(words[1:])
    if not urls:
        raise refused("the curl command names no URL")
    command = Command()
    command.aim(urls[0])
    bodies = apply(command, options)
    names = {name for name, _ in options}
    if "get" in names:
        mark = "&" if "?" in command.target else "?"
        command.target += mark + b"&".join(bodies).decode("latin-1") if bodies else ""
    elif bodies:
        separator = b"" if "json" in names else b"&"
        command.body = separator.join(bodies)
        command.default("content-type", "application/x-www-form-urlencoded")
    command.default("accept", "*/*")
    command.default("user-agent", "curl")
    given = command.method
    command.method = given or ("HEAD" if "head" in names else "POST" if command.body else "GET")
    command.headers = [(name, value) for name, value in command.headers if value]
    return command


def split_options(words: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Options, by what they say, and URLs. Short ones may stand together, with their value."""
    options: list[tuple[str, str]] = []
    urls: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            urls += rest
            break
        if not word.startswith("-") or word == "-":
            urls.append(word)
            continue
        if not word.startswith("--") and len(word) > 2:
            short = word[:2]
            if short in _VALUED or short in _IGNORED_VALUED:
                word, value = short, word[2:]
                rest.insert(0, value)
            else:
                rest.insert(0, "-" + word[2:])
                word = short
        if word in _VALUED or word in _IGNORED_VALUED:
            if not rest:
                raise refused(f"the curl command: {word} needs a value")
            value = rest.pop(0)
            if word in _VALUED:
                options.append((_VALUED[word], value))
        elif word in _FLAGS:
            options.append((_FLAGS[word], ""))
        elif word not in _IGNORED:
            raise refused(f"the curl option {word} is not known here")
    urls += [value for name, value in options if name == "url"]
    return options, urls


def apply(command: Command, options: list[tuple[str, str]]) -> list[bytes]:
    """Set what options say; the parts of the body."""
    bodies: list[bytes] = []
    for name, value in options:
        match name:
            case "request":
                command.method = value
            case "header":
                add_header(command, value)
            case "user":
                command.headers.append(("authorization", basic(value)))
            case "bearer":
                command.headers.append(("authorization", f"Bearer {value}"))
            case "cookie":
                if "=" in value:  # else the name of a file of cookies
                    command.headers.append(("cookie", value))
            case "agent":
                command.headers.append(("user-agent", value))
            case "referer":
                command.headers.append(("referer", value))
            case "range":
                command.headers.append(("range", f"bytes={value}"))
            case "compressed":
                command.headers.append(("accept-encoding", "deflate, gzip, br, zstd"))
            case "http10":
                command.version = b"HTTP/1.0"
            case "form":
                raise refused("multipart forms (-F) can't be explained: send the body with -d")
            case "data":
                bodies.append(load(value).translate(None, b"\r\n") if value[:1] == "@"
                              else value.encode())  # fmt: skip
            case "binary" | "json":
                bodies.append(load(value))
                if name == "json":
                    command.default("content-type", "application/json")
                    command.default("accept", "application/json")
            case "raw":
                bodies.append(value.encode())
            case "encoded":
                key, equals, content = value.partition("=")
                bodies.append((key + equals + quote_plus(content)).encode() if equals
                              else quote_plus(value).encode())  # fmt: skip
    return bodies


def add_header(command: Command, text: str) -> None:
    """Add the field of a `-H`; `Host: …` says the host."""
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if not colon and name.endswith(";"):
        return  # curl: a field without a value
    if not colon or not name:
        raise refused(f'-H {name!r}: write "Name: value"')
    if name.lower() == "host":
        command.host = value
    elif name.lower() != "content-length":
        command.headers.append((name, value))


def basic(credential: str) -> str:
    """RFC 7617."""
    return "Basic " + b64encode(credential.encode()).decode()


def load(value: str) -> bytes:
    """The bytes of a `-d`: its text, or with `@` those of a file."""
    if not value.startswith("@"):
        return value.encode()
    try:
        return Path(value[1:]).read_bytes()
    except OSError as error:
        raise refused(f"{value}: {error.strerror}") from None
