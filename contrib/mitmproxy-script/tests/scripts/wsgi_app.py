"""Host a WSGI app in mitmproxy."""

from mitmproxy.addons import asgiapp


def app(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]


addons = [asgiapp.WSGIApp(app, "example.com", 80)]
