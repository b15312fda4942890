"""The carrier made of mitmproxy: the only importer of its proxy internals and of uvloop."""
