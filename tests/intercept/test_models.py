"""Calls of unmodified programs to model APIs: recognised, counted, priced, logged, key-swapped."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .network import OPENAI, Network, Node, needs_network, python

pytestmark = [needs_network, pytest.mark.xdist_group("intercept-models")]

CONFIG = f"""
[gateway]
environment = "staging"
listen = ["127.0.0.1:0"]
deadlines = {{ drain = "2s" }}

[[intercept]]
mode = "transparent@0"
allow_hosts = ["{OPENAI}"]
upstream_ca = "ORIGIN_CA"

[[addon]]
use = "ai-usage"
count_prompts = true
headers = true
keys = [{{ provider = "openai", key = "sk-ours" }}]
scope = {{ hosts = ["{OPENAI}"] }}

[[addon]]
use = "log-access"
"""
SDK = """
import openai
client = openai.OpenAI(api_key="sk-theirs", max_retries=0)
ask = dict(model="gpt-4o", messages=[{"role": "user", "content": "one two"}])
raw = client.chat.completions.with_raw_response.create(**ask)
print(raw.parse().choices[0].message.content, raw.headers["x-tidegate-tokens"])
for part in client.chat.completions.create(**ask, stream=True):
    print(part.choices[0].delta.content, end=" ")
"""


def test_the_openai_sdk_without_a_base_url(network: Network, up: Callable[..., Node]) -> None:
    node = up(CONFIG)
    node.redirect(443)
    got = network.run(*python(SDK), env=node.trust)
    lines = got.stdout.splitlines()
    assert lines[0].startswith("ok one two input="), got.stderr
    assert lines[1] == "ok one two "
    seen = [dict(one["fields"]) for one in network.seen("/v1/chat")]
    assert [one["authorization"] for one in seen] == ["Bearer sk-ours"] * 2
    for line in node.logs(2, host=OPENAI):
        said = line["notes"]["ai"]
        told = said["provider"], said["model"], said["format"]
        assert told == ("openai", "gpt-4o", "openai-chat")
        # the origin says no usage: "one two" is 2 tokens, framed by 6
        assert (said["input"], said["estimated"]) == (8, False)
        assert said["output"] in (3, 4)  # "okonetwo" in the stream, "ok one two" as a whole
        assert said["cost_usd"] == pytest.approx(8 * 2.5e-6 + said["output"] * 10e-6)
        assert "sk-" not in str(line)
