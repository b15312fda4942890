"""The origin of the interception tests: a process in a namespace of its own.

`python origin.py CERTIFICATE` serves HTTPS on 443, HTTP on 80 and bytes on 9000, IPv4 and IPv6,
and mail on 25 and 26.
Knows nothing of Tidegate. What it answers says what it saw.
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

from wsproto import ConnectionType, WSConnection, events

PIECE = bytes(range(256)) * 256
STEPS = threading.Semaphore(0)
SEEN: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def setup(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()  # here, in the thread of the connection
        super().setup()

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path != "/seen":
            SEEN.append({"path": self.path, "fields": [list(f) for f in self.headers.items()]})
        if self.headers.get("upgrade", "").lower() == "websocket":
            self.websocket()
        elif path == "/seen":
            self.answer(json.dumps(SEEN).encode(), "application/json")
        elif path == "/next":
            STEPS.release()
            self.answer(b"released")
        elif path == "/sse":
            self.events(int(query or 3))
        elif path == "/big":
            self.big(int(query))
        elif path.startswith("/cacheable"):
            self.answer(b"answer %d" % len(SEEN), cache="max-age=600")
        else:
            self.answer(b"hello from the origin")

    def do_POST(self) -> None:
        SEEN.append({"path": self.path, "fields": [list(f) for f in self.headers.items()]})
        digest, size, body = hashlib.sha256(), 0, b""
        for piece in self.body():
            digest.update(piece)
            size += len(piece)
            body = piece if size < 65536 else b""
        if self.path.endswith("/chat/completions"):
            self.chat(json.loads(body))
        else:
            told = {"size": size, "sha256": digest.hexdigest()}
            self.answer(json.dumps(told).encode(), "application/json")

    do_PUT = do_POST

    def body(self) -> Any:
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("content-length", 0))
        while left:
            piece = self.rfile.read(min(left, 65536))
            left -= len(piece)
            yield piece

    def answer(self, body: bytes, kind: str = "text/plain", cache: str = "") -> None:
        self.send_response(200)
        if cache:
            self.send_header("Cache-Control", cache)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def events(self, count: int) -> None:
        """One event for each GET /next: a proxy that holds events back holds up the client."""
        self.begin("text/event-stream")
        for number in range(count):
            self.chunk(b"data: event %d\n\n" % number)
            if number < count - 1 and not STEPS.acquire(timeout=20):
                return
        self.chunk(b"")

    def big(self, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(size))
        self.end_headers()
        while size:
            piece = PIECE[:size]
            self.wfile.write(piece)
            size -= len(piece)

    def chat(self, asked: dict[str, Any]) -> None:
        text = "ok " + asked["messages"][-1]["content"]
        base = {"id": "c1", "created": 1, "model": asked["model"]}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            answer = {**base, "object": "chat.completion", "choices": [choice]}
            self.answer(json.dumps(answer).encode(), "application/json")
            return
        self.begin("text/event-stream")
        for word in text.split():
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            event = {**base, "object": "chat.completion.chunk", "choices": [choice]}
            self.chunk(f"data: {json.dumps(event)}\n\n".encode())
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def websocket(self) -> None:
        ws = WSConnection(ConnectionType.SERVER)
        fields = [(k.lower().encode(), v.encode()) for k, v in self.headers.items()]
        ws.initiate_upgrade_connection(fields, self.path)
        self.connection.sendall(ws.send(events.AcceptConnection()))
        self.close_connection = True
        while True:
            for event in ws.events():
                if isinstance(event, events.Message):
                    self.connection.sendall(ws.send(type(event)(data=event.data)))
                elif isinstance(event, events.CloseConnection):
                    self.connection.sendall(ws.send(event.response()))
                    return
            data = self.connection.recv(65536)
            if not data:
                return
            ws.receive_data(data)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None: ...


class Server6(Server):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().server_bind()


def echo(family: int, host: str) -> None:
    with socket.create_server((host, 9000), family=family) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)


class Mail(StreamRequestHandler):
    """A server that speaks first (RFC 5321 §3.1)."""

    def handle(self) -> None:
        self.wfile.write(b"220 origin ready\r\n")
        for _ in self.rfile:
            self.wfile.write(b"250 ok\r\n")


def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    for cls, family, host in (
        (Server, socket.AF_INET, "0.0.0.0"),
        (Server6, socket.AF_INET6, "::"),
    ):
        plain = cls((host, 80), Handler)
        secure = cls((host, 443), Handler)
        secure.socket = context.wrap_socket(
            secure.socket, server_side=True, do_handshake_on_connect=False
        )
        for server in (plain, secure):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        threading.Thread(target=echo, args=(family, host), daemon=True).start()
    for port in (25, 26):
        mail = ThreadingTCPServer(("0.0.0.0", port), Mail)
        threading.Thread(target=mail.serve_forever, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
