"""Every recorded call of a real provider: read however its bytes are cut, priced, counted."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from itertools import pairwise

import genai_prices
import pytest
from tidegate_ai_usage import reader as reading
from tidegate_ai_usage.prices import Prices, dollars
from tidegate_ai_usage.providers import PROVIDERS
from tidegate_ai_usage.reader import Reader
from tidegate_ai_usage.texts import prompt_of, words
from tidegate_ai_usage.tokens import tokenizer_for

NOW = 1_795_000_000.0  # 2026-11-18
SILENT = ("moderations", "ocr", "speech", "embeddings")
"""Kinds of calls in whose answers not every provider says what it used."""


def read(content_type: str, *pieces: bytes, complete: bool = True) -> Reader:
    found = Reader(content_type.lower())
    for piece in pieces:
        found.write(piece)
    found.close(complete=complete, trailers=None)
    found.settle()
    return found


def said(found: Reader) -> tuple[object, ...]:
    return found.usage, found.finish, found.model, found.streamed


def test_every_answer_of_a_model_says_what_it_used(recordings):
    for one in recordings:
        found = read(one.content_type, one.body)
        assert found.usage is not None or one.api.kind in SILENT, one.number
        if found.usage is not None and one.api.kind == "chat":
            assert found.usage.input, one.number
            assert found.finish or one.kind == "stream", one.number


def test_no_cut_of_the_bytes_changes_what_is_read(recordings, monkeypatch):
    chance = random.Random(7)
    for one in recordings:
        whole = said(read(one.content_type, one.body))
        for batch in (1 << 16, 200):
            monkeypatch.setattr(reading, "BATCH", batch)
            at = sorted(chance.randrange(len(one.body)) for _ in range(20))
            cuts = [0, *at, len(one.body)]
            pieces = [one.body[a:b] for a, b in pairwise(cuts)]
            assert said(read(one.content_type, *pieces)) == whole, one.number
        monkeypatch.undo()


def test_the_figures_are_those_of_the_translators(recordings):
    formats = pytest.importorskip("tidegate_ai_formats")
    events = pytest.importorskip("tidegate_ai_formats.events")
    framing = pytest.importorskip("tidegate_ai_formats.framing")
    compared = 0
    for one in recordings:
        try:
            format = formats.get_format(one.api.format)
        except LookupError:
            continue
        if one.api.kind != "chat":
            continue
        if one.kind == "stream":
            array = one.body.startswith(b"[")
            wire = framing.decoder("json-array" if array else format.framing)
            parser = format.stream_parser()
            items = [*wire.feed(one.body), *wire.end()]
            stream = [event for item in items for event in parser.feed(item)] + parser.end()
            wanted = events.collect(stream).usage
        else:
            wanted = format.parse_response(json.loads(one.body)).usage
        got = read(one.content_type, one.body).usage
        if wanted is None:
            continue
        figures = (got.input, got.output, got.cache_read, got.cache_write, got.cache_write_1h)
        rest = (got.reasoning, got.audio_input, got.audio_output)
        assert figures + rest == wanted.figures(), one.number
        compared += 1
    assert compared > 500


def test_the_cost_is_the_price_tables_own(recordings):
    prices = Prices()
    compared = 0
    for one in recordings:
        found = read(one.content_type, one.body)
        usage, model = found.usage, found.model or one.api.model
        if usage is None or usage.cost is not None or not model:
            continue
        cost = prices.cost(one.provider.name, model, usage, NOW)
        input, output = usage.billed or (usage.input, usage.output)
        known = {
            "input_tokens": input,
            "output_tokens": output,
            "cache_read_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
            "cache_write_1h_tokens": usage.cache_write_1h,
            "input_audio_tokens": usage.audio_input,
            "output_reasoning_tokens": usage.reasoning,
            "web_searches": usage.searches,
        }
        try:
            wanted = genai_prices.calc_price(
                genai_prices.Usage(**{key: value for key, value in known.items() if value}),
                model,
                provider_id=PROVIDERS[one.provider.name].prices,
                genai_request_timestamp=datetime.fromtimestamp(NOW, UTC),
                price_context={"service_tier": usage.tier} if usage.tier else None,
            ).total_price
        except LookupError:
            continue
        assert cost is not None, one.number
        assert dollars(cost) == wanted, one.number
        compared += 1
    assert compared > 350


def test_a_stream_that_is_cut_is_counted_up_to_the_cut(recordings):
    for one in recordings:
        if one.kind != "stream" or one.api.kind != "chat":
            continue
        half = read(one.content_type, one.body[: len(one.body) // 2], complete=False)
        whole = read(one.content_type, one.body, complete=False)
        spoken, all_of_it = "".join(half.words), "".join(whole.words)
        assert all_of_it.startswith(spoken), one.number


@pytest.mark.parametrize(("provider", "tolerance"), [("openai", 0.02), ("anthropic", 0.1)])
def test_counted_answers_are_near_what_providers_say(recordings, provider, tolerance):
    off = total = 0
    for one in recordings:
        if one.provider.name != provider or one.kind != "json" or one.api.kind != "chat":
            continue
        found = read(one.content_type, one.body)
        written = list(words(json.loads(one.body)))
        if found.usage.reasoning or any(word.startswith("{") for word in written):
            continue  # thought that is not shown, and calls of tools
        count = tokenizer_for(found.model).answer("".join(written))
        off += abs(count - found.usage.output)
        total += found.usage.output
    assert total
    assert off / total < tolerance


def test_counted_prompts_of_openai_are_near_what_it_says(recordings):
    off = []
    for one in recordings:
        found = read(one.content_type, one.body)
        if one.provider.name not in ("openai", "azure") or one.api.kind != "chat":
            continue
        if not one.request or not found.model.startswith("gpt-") or "search" in found.model:
            continue
        prompt = prompt_of(one.request)
        if prompt.media or any(tool.get("type") != "function" for tool in prompt.tools):
            continue  # what a provider adds unseen: images, and what its own tools find
        off.append(abs(tokenizer_for(found.model).prompt(prompt) - found.usage.input))
    off.sort()
    assert len(off) > 50
    assert off[len(off) // 2] <= 1
    assert off[len(off) * 9 // 10] <= 8
