"""Select which responses should be streamed."""


def responseheaders(flow):
    flow.response.stream = True
    flow.response.headers["streamed"] = "yes"
