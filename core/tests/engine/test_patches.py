"""The seams in mitmproxy that the engine stands on are where it thinks they are."""

from __future__ import annotations

import inspect
import subprocess
import sys

from mitmproxy.proxy.layers import http as mitm_http


def test_every_seam_replaces_a_class_that_ours_derives_from() -> None:
    code = (
        "import importlib\n"
        "from tidegate.engine import patches\n"
        "for module, name, ours in patches.SEAMS:\n"
        "    theirs = getattr(module, name)\n"
        "    assert theirs is not ours, (module, name)\n"
        "    assert callable(theirs) if not isinstance(ours, type) else issubclass(ours, theirs)\n"
        "patches.install()\n"
        "patches.install()\n"
        "for module, name, ours in patches.SEAMS:\n"
        "    assert getattr(module, name) is ours, (module, name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_mitmproxy_looks_the_replaced_names_up_when_they_are_needed() -> None:
    source = inspect.getsource(mitm_http)
    for call in ("HttpStream(ctx", "Http1Server(self", "Http2Server(self", "Http1Client(self"):
        assert call in source
