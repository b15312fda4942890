"""The fast HTTP/1.1 carrier: `Lane`.

server.py     the lane of a worker: connections, clock, drain
client.py     a client's connection; requests.py parses it
exchange.py   one exchange: hooks, request body, ends; stages.py names its stages
delivery.py   its attempts to send it upstream
answer.py     what the client gets
pool.py       upstream connections; origin.py is one, responses.py parses it
dial.py, tls.py, coding.py, framing.py   what they stand on
"""

from .handover import Handover
from .server import Lane

__all__ = ["Handover", "Lane"]
