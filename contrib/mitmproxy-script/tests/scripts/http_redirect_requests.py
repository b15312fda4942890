"""Redirect HTTP requests to another server."""

from mitmproxy import ctx, http


def load(loader):
    loader.add_option("elsewhere", int, 0, "The port to go to.")


def request(flow: http.HTTPFlow) -> None:
    if flow.request.pretty_host == "example.org":
        flow.request.host = "127.0.0.1"
        flow.request.port = ctx.options.elsewhere
