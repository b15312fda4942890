"""TLS on both sides, with certificates made for the test."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tidegate.api import Tls, upstream_from_url
from tidegate.runtime.settings import Certificate, Listener
from tidegate.testing import ScriptedUpstream
from tidegate.testing.script import close, head, send

from .conftest import Peer, Serve


class Authority:
    """A CA in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        self._certificate = self._sign(name, name, self._key, [], ca=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, subject, issuer, key, names, *, ca=False) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if ca:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, stem: str, *names: str) -> tuple[str, str]:
        """(cert, key) files for these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, stem)])
        cert = self._sign(subject, self._certificate.subject, key, list(names))
        cert_file, key_file = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return str(cert_file), str(key_file)

    def client(self, *alpn: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.file))
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    def server(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue("upstream", *names))
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def names_of(peer) -> list[str]:
    certificate = peer.writer.get_extra_info("peercert")
    return [value for _, value in certificate["subjectAltName"]]


async def test_certificates_are_chosen_by_sni_and_reloaded(
    serve: Serve, upstream: ScriptedUpstream, authority: Authority
) -> None:
    cert, key = authority.issue("one", "one.test")
    other = authority.issue("two", "*.two.test")
    listener = Listener(
        name="tls",
        address="127.0.0.1:0",
        cert=cert,
        key=key,
        certificates=(Certificate(cert=other[0], key=other[1]),),
    )
    running = await serve(upstream_from_url(upstream.url), listener=listener)
    one = await running.connect(authority.client("http/1.1"), "one.test")
    assert names_of(one) == ["one.test"]
    assert one.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    assert (await one.get()).status == 200
    two = await running.connect(authority.client(), "api.two.test")
    assert names_of(two) == ["*.two.test"]
    assert (await two.get()).status == 200
    clients = [exchange.client for exchange in await running.ended(2)]
    assert [(client.tls, client.sni) for client in clients] == [
        (True, "one.test"),
        (True, "api.two.test"),
    ]
    assert upstream.requests[0].values("x-forwarded-proto") == ["https"]

    authority.issue("one", "one.test", "new.test")
    os.utime(cert, (1, 1))
    running.lane.reconfigure(running.lane.settings)
    renewed = await running.connect(authority.client(), "new.test")
    assert names_of(renewed) == ["one.test", "new.test"]
    assert (await one.get()).status == 200

    Path(cert).write_text("rubbish")
    running.lane.reconfigure(running.lane.settings)
    assert names_of(await running.connect(authority.client(), "new.test"))


async def test_a_client_certificate_is_told_to_the_hooks(
    serve: Serve, upstream: ScriptedUpstream, authority: Authority
) -> None:
    cert, key = authority.issue("one", "one.test")
    listener = Listener(
        name="tls", address="127.0.0.1:0", cert=cert, key=key, client_ca=str(authority.file)
    )
    running = await serve(upstream_from_url(upstream.url), listener=listener)
    context = authority.client()
    context.load_cert_chain(*authority.issue("caller", "caller.test"))
    assert (await (await running.connect(context, "one.test")).get()).status == 200
    assert (await (await running.connect(authority.client(), "one.test")).get()).status == 200
    first, second = [exchange.client.certificate for exchange in await running.ended(2)]
    assert first is not None
    assert x509.load_der_x509_certificate(first).subject.rfc4514_string() == "CN=caller"
    assert second is None


async def test_a_client_that_speaks_only_http2_is_refused_clearly(
    serve: Serve, authority: Authority
) -> None:
    cert, key = authority.issue("one", "one.test")
    listener = Listener(name="tls", address="127.0.0.1:0", cert=cert, key=key)
    running = await serve(None, listener=listener)
    peer = await running.connect(authority.client("h2"), "one.test")
    assert peer.writer.get_extra_info("ssl_object").selected_alpn_protocol() is None
    await peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert b"HTTP/1.1 is spoken here" in await peer.closed()


async def test_an_upstream_is_verified_against_its_ca(serve: Serve, authority: Authority) -> None:
    async with ScriptedUpstream(tls=authority.server("localhost")) as upstream:
        url = f"https://localhost:{upstream.port}"
        running = await serve(upstream_from_url(url, tls=Tls(ca=str(authority.file))))
        peer = await running.connect()
        for _ in range(2):
            assert (await peer.get()).body == b"ok"
        assert upstream.connections == 1

        unknown = await serve(upstream_from_url(url))
        answer = await (await unknown.connect()).get()
        assert (answer.status, answer.code) == (502, "upstream_tls_invalid")

        tls = Tls(ca=str(authority.file), sni="other.test")
        misnamed = await serve(upstream_from_url(url, tls=tls))
        assert (await (await misnamed.connect()).get()).code == "upstream_tls_invalid"


async def test_a_session_of_an_upstream_is_resumed(serve: Serve, authority: Authority) -> None:
    async with ScriptedUpstream(tls=authority.server("localhost")) as upstream:
        url = f"https://localhost:{upstream.port}"
        running = await serve(upstream_from_url(url, tls=Tls(ca=str(authority.file))))
        peer = await running.connect()
        assert (await peer.get()).status == 200
        endpoint = next(iter(running.lane.pool._endpoints.values()))
        endpoint.close_idle()
        await upstream.until(lambda: upstream.open == 0)
        assert (await peer.get()).status == 200
        assert endpoint.idle[0].tls.session_reused


@pytest.mark.parametrize("framed", [True, False], ids=["length", "until close"])
async def test_a_slow_client_gets_all_of_what_a_tls_upstream_sent_before_it_closed(
    serve: Serve, authority: Authority, framed: bool
) -> None:
    """uvloop's TLS may lose what it holds when the peer closes while reading is paused."""
    data = bytes(range(256)) * 8_192  # 2 MiB, and small buffers on the client's side
    fields = {"connection": "close"} | ({"content-length": str(len(data))} if framed else {})
    async with ScriptedUpstream(tls=authority.server("localhost")) as upstream:
        upstream.answer(head(200, fields), send(data), close())
        leaf = upstream_from_url(
            f"https://localhost:{upstream.port}", tls=Tls(ca=str(authority.file))
        )
        running = await serve(leaf)
        for _ in range(5):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", running.port))
            peer = Peer(*await asyncio.open_connection(sock=sock, limit=8192))
            await peer.send(b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n")
            received = bytearray()
            while piece := await peer.reader.read(16_384):
                received += piece
                await asyncio.sleep(0.001)  # slower than the upstream: the lane pauses it
            peer.writer.close()
            body = bytes(received).partition(b"\r\n\r\n")[2]
            assert (body if framed else dechunked(body)) == data


def dechunked(body: bytes) -> bytes:
    """The content of a chunked body; AssertionError where it has no end."""
    out = bytearray()
    while True:
        size, _, body = body.partition(b"\r\n")
        assert size, "the body is cut"
        if int(size, 16) == 0:
            return bytes(out)
        out += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
