"""Options: a number to start from, checked in configure."""

import logging
import typing

from mitmproxy import ctx, exceptions


class Counter:
    def __init__(self):
        self.count = 0
        self.life = ["made"]

    def load(self, loader):
        self.life.append("load")
        loader.add_option(name="start", typespec=int, default=0, help="Where to start counting")
        loader.add_option("label", typing.Optional[str], None, "Its name")  # noqa: UP045

    def configure(self, updates):
        self.life.append("configure")
        if "start" in updates:
            if ctx.options.start < 0:
                raise exceptions.OptionsError("start must not be negative")
            self.count = ctx.options.start

    def running(self):
        self.life.append("running")
        ctx.log.info("counting")

    def done(self):
        self.life.append("done")

    def request(self, flow):
        self.count = self.count + 1
        logging.info("We've seen %d flows", self.count)
        flow.request.headers["x-count"] = f"{ctx.options.label or ''}{self.count}"


addons = [Counter()]
