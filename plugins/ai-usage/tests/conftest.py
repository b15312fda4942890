"""Recorded calls of real providers, where they are at hand."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tidegate_ai_usage.providers import Api, Provider, api_of, provider_of

RECORDINGS = Path(__file__).parents[4] / "shared" / "recordings" / "providers.jsonl.gz"


@dataclass(frozen=True)
class Recording:
    number: int
    kind: str
    provider: Provider
    api: Api
    path: str
    content_type: str
    request: Any
    body: bytes


def _load() -> list[Recording]:
    if not RECORDINGS.exists():
        return []
    out = []
    with gzip.open(RECORDINGS) as lines:
        for number, line in enumerate(lines):
            raw = json.loads(line)
            url = urlsplit(raw["url"].replace("<AWS_REGION>", "us-east-1"))
            provider, api = provider_of(url.netloc), api_of(url.path)
            assert provider is not None, url
            if api is None or raw["status"] >= 400:
                continue
            body = base64.b64decode(raw["body_b64"])
            kind, request = raw["kind"].partition("+")[0], raw["request"]
            found = kind, provider, api, url.path, raw["content_type"], request, body
            out.append(Recording(number, *found))
    return out


@pytest.fixture(scope="session")
def recordings() -> list[Recording]:
    found = _load()
    if not found:
        pytest.skip(f"no recordings at {RECORDINGS}")
    return found
