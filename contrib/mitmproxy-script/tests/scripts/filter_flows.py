"""Use mitmproxy's filter pattern in a script."""

from mitmproxy import flowfilter, http


class Filter:
    filter: flowfilter.TFilter

    def configure(self, updated):
        if "flowfilter" in updated:
            from mitmproxy import ctx

            self.filter = flowfilter.parse(ctx.options.flowfilter)

    def load(self, loader):
        loader.add_option("flowfilter", str, "~u /secret", "Check that flow matches filter.")

    def request(self, flow: http.HTTPFlow) -> None:
        if flowfilter.match(self.filter, flow):
            flow.kill()


addons = [Filter()]
