"""Import a module that lies beside the script."""

from helper_module import NAME


def response(flow):
    flow.response.headers[NAME] = flow.client_conn.peername[0]
