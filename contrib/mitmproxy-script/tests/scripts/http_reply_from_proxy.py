"""Send a reply from the proxy without sending the request to the remote server."""

from mitmproxy import http


def request(flow: http.HTTPFlow) -> None:
    if flow.request.path == "/path":
        flow.response = http.Response.make(200, b"Hello World", {"Content-Type": "text/html"})
