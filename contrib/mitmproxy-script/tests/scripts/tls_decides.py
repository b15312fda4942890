"""Decide about TLS and connections; keep what was seen."""

import logging

from mitmproxy import connection, ctx, tls


class Decides:
    def load(self, loader):
        loader.add_option("pass_host", str, "", "The host whose TLS passes untouched.")
        loader.add_option("block_port", int, 0, "The port that nothing connects to.")

    def client_connected(self, client: connection.Client):
        self.note("client_connected", client)

    def client_disconnected(self, client: connection.Client):
        self.note("client_disconnected", client)

    def server_connect(self, data):
        if data.server.address[1] == ctx.options.block_port:
            data.server.error = "not this one"
        self.note("server_connect", data.client)

    def server_connected(self, data):
        self.note("server_connected", data.client)

    def server_connect_error(self, data):
        self.note("server_connect_error", data.client)

    def server_disconnected(self, data):
        self.note("server_disconnected", data.client)

    def tls_clienthello(self, data: tls.ClientHelloData):
        data.ignore_connection = data.client_hello.sni == ctx.options.pass_host
        self.note("tls_clienthello", data.context.client)

    async def tls_established_client(self, data: tls.TlsData):
        self.note("tls_established_client", data.conn)

    def tls_failed_client(self, data: tls.TlsData):
        self.note("tls_failed_client", data.conn)

    def note(self, hook: str, client: connection.Client):
        logging.info("saw %s of %s", hook, client.sni)

    def request(self, flow):
        flow.request.headers["x-script"] = "1"


addons = [Decides()]
