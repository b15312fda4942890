"""Stop the flow for a person to look at."""


def request(flow):
    flow.intercept()
