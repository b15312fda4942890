"""Requests in HTTP/1.1 that must not be taken: framing, targets, sizes.

For the tests of both carriers: each vector gets the same answer on either.
"""

from __future__ import annotations

from typing import Final

HOST: Final = b"Host: api.test\r\n"
SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n"


def get(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = HOST) -> bytes:
    """A head with `Host: api.test`."""
    return line + b"\r\n" + host + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def post(*fields: bytes, body: bytes = b"") -> bytes:
    """A POST with a body that the fields describe, or not."""
    return get(*fields, line=b"POST / HTTP/1.1") + body


CHUNKED: Final = b"Transfer-Encoding: chunked"

FRAMING: Final = {
    "length and coding": post(b"Content-Length: 4", CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "coding and length": post(CHUNKED, b"Content-Length: 4", body=b"0\r\n\r\n" + SMUGGLED),
    "two lengths": post(b"Content-Length: 1", b"Content-Length: 2", body=b"ab"),
    "the same length twice": post(b"Content-Length: 1", b"Content-Length: 1", body=b"a"),
    "a list of lengths": post(b"Content-Length: 1, 1", body=b"a"),
    "a signed length": post(b"Content-Length: +1", body=b"a"),
    "a negative length": post(b"Content-Length: -1", body=b"a"),
    "a hexadecimal length": post(b"Content-Length: 0x1", body=b"a"),
    "a length with a space in it": post(b"Content-Length: 1 1", body=b"a" * 11),
    "an empty length": post(b"Content-Length:", body=b"a"),
    "a huge length": post(b"Content-Length: 99999999999999999999", body=b"a"),
    "a length over 18 digits": post(b"Content-Length: 1234567890123456789", body=b"a"),
    "another coding": post(b"Transfer-Encoding: gzip", body=b"a"),
    "another coding before chunked": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "chunked before another coding": post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "identity": post(b"Transfer-Encoding: identity", b"Content-Length: 1", body=b"a"),
    "chunked twice in a field": post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "chunked in two fields": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    "a coding that looks like chunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "chunked with a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "chunked in quotes": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"),
    "an empty coding": post(b"Transfer-Encoding:", body=b"0\r\n\r\n"),
    "a coding in HTTP/1.0": b"POST / HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n\r\n0\r\n\r\n",
    "a folded line": get(b"A: b", b" c"),
    "a folded coding": post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"),
    "a space first in the head": get(b"A: b", host=b" " + HOST),
    "a space before the colon": post(b"Content-Length : 1", body=b"a"),
    "a tab before the colon": post(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n"),
    "a space in a name": get(b"A b: c"),
    "a line without a colon": get(b"nonsense"),
    "an empty name": get(b": c"),
    "NUL in a value": get(b"A: b\0c"),
    "NUL in a name": get(b"A\0: b"),
    "a control character in a value": get(b"A: b\x01c"),
    "DEL in a value": get(b"A: b\x7fc"),
    "bare LF after the request line": b"GET / HTTP/1.1\n" + HOST + b"\r\n",
    "bare LF after a field": get(b"A: b\nC: d"),
    "bare LF at the end of the head": b"GET / HTTP/1.1\r\n" + HOST + b"\n",
    "bare CR in a value": get(b"A: b\rC: d"),
    "bare CR after a field": b"GET / HTTP/1.1\r\n" + b"A: b\r" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/0.9 by name": get(line=b"GET / HTTP/0.9"),
    "HTTP/1.2": get(line=b"GET / HTTP/1.2"),
    "HTTP/2.0": get(line=b"GET / HTTP/2.0"),
    "HTTP/1.10": get(line=b"GET / HTTP/1.10"),
    "lower case http": get(line=b"GET / http/1.1"),
    "another protocol": get(line=b"GET / ICE/1.0"),
    "RTSP": get(line=b"DESCRIBE / RTSP/1.0"),
    "RTSP with a method of HTTP": get(line=b"OPTIONS / RTSP/1.0"),
    "two spaces before the target": get(line=b"GET  / HTTP/1.1"),
    "two spaces after the target": get(line=b"GET /  HTTP/1.1"),
    "a tab in the request line": get(line=b"GET\t/ HTTP/1.1"),
    "a space after the version": get(line=b"GET / HTTP/1.1 "),
    "a space before the method": get(line=b" GET / HTTP/1.1"),
    "no target": get(line=b"GET HTTP/1.1"),
    "a method in lower case": get(line=b"get / HTTP/1.1"),
    "a method that is none": get(line=b"<script> / HTTP/1.1"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 32,
    "rubbish": b"\xff\xfe rubbish\r\n\r\n",
    "a chunk size that is none": post(CHUNKED, body=b"x\r\na\r\n0\r\n\r\n"),
    "a chunk size with a prefix": post(CHUNKED, body=b"0x1\r\na\r\n0\r\n\r\n"),
    "a signed chunk size": post(CHUNKED, body=b"+1\r\na\r\n0\r\n\r\n"),
    "an empty chunk size": post(CHUNKED, body=b"\r\na\r\n0\r\n\r\n"),
    "a chunk size with a space": post(CHUNKED, body=b"1 \r\na\r\n0\r\n\r\n"),
    "a chunk size that overflows": post(CHUNKED, body=b"10000000000000001\r\na\r\n0\r\n\r\n"),
    "a chunk longer than its size": post(CHUNKED, body=b"1\r\nab\r\n0\r\n\r\n"),
    "a chunk that ends in LF": post(CHUNKED, body=b"1\r\na\n0\r\n\r\n"),
    "a chunk size that ends in LF": post(CHUNKED, body=b"1\na\r\n0\r\n\r\n"),
    "LF in a chunk extension": post(CHUNKED, body=b"1;a\nb\r\na\r\n0\r\n\r\n"),
    "CR in a chunk extension": post(CHUNKED, body=b"1;a\rb\r\na\r\n0\r\n\r\n"),
    "NUL in a chunk extension": post(CHUNKED, body=b"1;a\0\r\na\r\n0\r\n\r\n"),
    "a flood of chunk extensions": post(
        CHUNKED, body=(b"1;" + b"x" * 4000 + b"\r\na\r\n") * 20 + b"0\r\n\r\n"
    ),
    "a trailer with a bare LF": post(CHUNKED, body=b"0\r\nA: b\n\r\n"),
    "a folded trailer": post(CHUNKED, body=b"0\r\nA: b\r\n c\r\n\r\n"),
}

TARGETS: Final = {
    "another host than Host's": get(line=b"GET http://evil.test/ HTTP/1.1"),
    "another scheme": get(line=b"GET ftp://api.test/ HTTP/1.1"),
    "two slashes first": get(line=b"GET //evil.test/ HTTP/1.1"),
    "an escaped slash": get(line=b"GET /a%2fb HTTP/1.1"),
    "an escaped backslash": get(line=b"GET /a%5cb HTTP/1.1"),
    "dot segments": get(line=b"GET /a/../b HTTP/1.1"),
    "escaped dot segments": get(line=b"GET /a/%2e%2e/b HTTP/1.1"),
    "half escaped dot segments": get(line=b"GET /a/.%2e/b HTTP/1.1"),
    "dots behind an escaped slash": get(line=b"GET /a/..%2fb HTTP/1.1"),
    "an escaped NUL": get(line=b"GET /a%00b HTTP/1.1"),
    "a broken escape": get(line=b"GET /a%zz HTTP/1.1"),
    "a fragment": get(line=b"GET /a#f HTTP/1.1"),
    "a backslash": get(line=b"GET /a\\b HTTP/1.1"),
    "asterisk for GET": get(line=b"GET * HTTP/1.1"),
    "an authority": get(line=b"GET api.test:80 HTTP/1.1"),
    "no Host": get(host=b""),
    "two Hosts": get(b"Host: api.test"),
    "two Hosts in one": get(host=b"Host: api.test, evil.test\r\n"),
    "a Host with user information": get(host=b"Host: api.test@evil.test\r\n"),
    "a Host with a path": get(host=b"Host: api.test/x\r\n"),
    "a Host with a port that is none": get(host=b"Host: api.test:99999\r\n"),
    "a Host with a space": get(host=b"Host: api test\r\n"),
}

SIZES: Final = {
    "a target over 8 KiB": (get(line=b"GET /" + b"a" * 9000 + b" HTTP/1.1"), 414, "uri_too_long"),
    "101 fields": (get(*[b"A: b"] * 100), 431, "headers_too_large"),
    "33 KiB of fields": (get(b"A: " + b"b" * 33_000), 431, "headers_too_large"),
    "a field without an end": (
        b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 40_000,
        431,
        "headers_too_large",
    ),
    "a target without an end": (b"GET /" + b"a" * 40_000, 414, "uri_too_long"),
    "a length over the limit": (post(b"Content-Length: 2000001"), 413, "body_too_large"),
    "a chunked body over the limit": (
        post(CHUNKED, body=b"2dc6c0\r\n" + b"x" * 3_000_000 + b"\r\n0\r\n\r\n"),
        413,
        "body_too_large",
    ),
}
