"""Take note of flows that got no answer."""

seen = []


def error(flow):
    seen.append((flow.request.path, flow.error.msg, flow.server_conn.address))
