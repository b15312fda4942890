"""The engine: the carrier built on mitmproxy, for whatever is not plain gateway HTTP/1.1.

Only this package imports mitmproxy's proxy internals and uvloop.

    engine      what a worker starts, drains and stops
    master      a mitmproxy Master with the few addons it needs, and one table of hooks
    modes       the gateway listener as a proxy mode, on inherited sockets
    lanes       what is asked of the lane, and taken from it
    handler     one client connection: commands of the layers into I/O, deadlines
    layers      HttpLayer with upstreams of ours
    stream      one exchange as a layer: what is sent when; ending: every way it may end
    http1/http2 the wire, with our limits and our errors
    call        the state of one exchange between layers and pipeline
    bridge      the pipeline, called from mitmproxy's hooks; outgoing, incoming: its phases
"""

from .engine import Engine
from .loop import new_loop, run

__all__ = ["Engine", "new_loop", "run"]
