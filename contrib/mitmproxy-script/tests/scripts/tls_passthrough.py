"""Decide about TLS connections."""

from mitmproxy import tls


def tls_clienthello(data: tls.ClientHelloData):
    data.ignore_connection = True


def request(flow):
    flow.request.headers["seen"] = "1"
