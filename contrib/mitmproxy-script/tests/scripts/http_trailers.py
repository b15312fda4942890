"""Add and read HTTP trailers."""

from mitmproxy import http
from mitmproxy.http import Headers


def request(flow: http.HTTPFlow):
    flow.request.headers["trailer"] = "x-my-trailer"
    flow.request.trailers = Headers([(b"x-my-trailer", b"foobar")])


def response(flow: http.HTTPFlow):
    if flow.response.trailers:
        flow.response.headers["seen"] = ",".join(flow.response.trailers)
    flow.response.trailers = Headers([(b"x-server-trailer", b"bar")])
