"""mitmproxy's flow files, both ways."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from io import BufferedReader
from typing import Any, BinaryIO, Final

import orjson
from mitmproxy import connection, http, io
from mitmproxy.io import compat, tnetstring

from tidegate.api.cassette import principal_of
from tidegate.api.recording import Answer, Fields, Recording, recorded_fields
from tidegate.runtime.messages import make_request, make_response

from .extra import chunks_of, chunks_to_json, cut_events

EXTRA: Final = "tidegate"


def from_flows(file: BufferedReader, name: str) -> Iterator[Recording]:
    """The HTTP exchanges of a flow file; others are passed over. Raises ValueError."""
    number = 0
    while file.peek(1):
        number += 1
        try:
            state: dict[Any, Any] = compat.migrate_flow(tnetstring.load(file))  # type: ignore[arg-type]
            told = _recording(state, f"{name}#{number}") if _is_plain(state) else None
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"not a flow file: {error}") from None
        if told is not None:
            yield told


def _is_plain(state: dict[Any, Any]) -> bool:
    return state["type"] == "http" and state.get("websocket") is None


def _recording(state: dict[Any, Any], name: str) -> Recording:
    """A recording of a flow's state. To make the flow of it, which checks the type of each of its
    eighty attributes, would take ten times as long."""
    extra: dict[str, Any] = state["metadata"].get(EXTRA, {})
    request = _request(state["request"])
    body, headers = _decoded(request)
    peer = state["client_conn"]["peername"]
    answer = None
    if state["response"] is not None:
        response = _response(state["response"])
        content, fields = _decoded(response)
        answer = Answer(response.status_code, response.reason or "", fields, content)
        if "chunks" in extra:
            answer = replace(answer, content=b"", chunks=chunks_of(orjson.loads(extra["chunks"])))
        else:
            answer = cut_events(answer)
    return Recording(
        method=request.method,
        url=request.pretty_url,
        headers=headers,
        body=body,
        answer=answer,
        id=extra.get("id", state["id"]),
        now=round(request.timestamp_start, 3),
        seed=int(extra.get("seed", 0)),
        client=extra.get("client", peer[0]),
        listener=extra.get("listener", "gateway"),
        principal=principal_of(extra.get("principal", "")),
        name=name,
    )


def _request(state: dict[str, Any]) -> http.Request:
    return make_request(
        state["method"],
        state["scheme"],
        state["authority"],
        state["host"],
        state["port"],
        state["path"],
        tuple(tuple(field) for field in state["headers"]),
        state["content"],
        state["timestamp_start"],
        state["http_version"],
    )


def _response(state: dict[str, Any]) -> http.Response:
    return make_response(
        state["status_code"],
        state["reason"],
        tuple(tuple(field) for field in state["headers"]),
        state["content"],
        state["timestamp_start"],
        state["http_version"],
    )


def _decoded(message: http.Message) -> tuple[bytes, Fields]:
    """Body without its content coding, where that can be undone, and the fields that then fit."""
    fields = recorded_fields(message.headers.fields)
    try:
        content = message.get_content(strict=True) or b""
    except ValueError:
        return message.raw_content or b"", fields
    return content, tuple(f for f in fields if f[0].lower() != "content-encoding")


def to_flows(recordings: Iterable[Recording], file: BinaryIO) -> None:
    """Write recordings as a flow file, for `mitmproxy -r`, `mitmweb -r` and `mitmdump -nr`."""
    writer = io.FlowWriter(file)  # type: ignore[no-untyped-call]
    for recording in recordings:
        writer.add(_flow(recording))


def _flow(recording: Recording) -> http.HTTPFlow:
    client = connection.Client(
        peername=(recording.client or "192.0.2.1", 0),
        sockname=("127.0.0.1", 0),
        timestamp_start=recording.now,
    )
    request = http.Request.make(
        recording.method, recording.url, recording.body, _raw(recording.headers)
    )
    request.timestamp_start = request.timestamp_end = recording.now
    server = connection.Server(address=(request.host, request.port))
    flow = http.HTTPFlow(client, server)
    flow.request = request
    extra: dict[str, Any] = {
        "id": recording.id,
        "seed": str(recording.seed),
        "client": recording.client,
        "listener": recording.listener,
        "principal": recording.principal.id if recording.principal else "",
    }
    answer = recording.answer
    if answer is not None:
        flow.response = http.Response.make(answer.status, answer.body, _raw(answer.headers))
        flow.response.reason = answer.reason
        flow.response.timestamp_start = flow.response.timestamp_end = recording.now
        if answer.chunks is not None:
            extra["chunks"] = orjson.dumps(chunks_to_json(answer.chunks)).decode()
    flow.metadata[EXTRA] = extra
    return flow


def _raw(fields: Fields) -> http.Headers:
    return http.Headers([(n.encode("latin-1"), v.encode("latin-1")) for n, v in fields])
