"""The first call with a key of one's own, on the configuration that a fresh checkout has."""

from __future__ import annotations

from importlib.resources import files

import anthropic
import openai
import pytest

from tidegate.testing import Gateway

DEFAULT = files("tidegate.cli").joinpath("default_addons.toml").read_text("utf-8")


@pytest.fixture
def env(llmock):
    """A provider's key in the environment, and nothing else."""
    gone = {"ANTHROPIC_API_KEY": "", "GEMINI_API_KEY": "", "MISTRAL_API_KEY": "",
            "GROQ_API_KEY": "", "OPENROUTER_API_KEY": ""}  # fmt: skip
    return {**gone, "OPENAI_API_KEY": "sk-canary", "OPENAI_BASE_URL": llmock.base_url("openai")}


async def test_with_a_key_in_the_environment_the_first_call_is_answered(tmp_path, llmock, env):
    llmock.reply("Tides come and go.", times=None)
    async with Gateway(tmp_path, DEFAULT, env=env) as gateway:
        async with openai.AsyncOpenAI(
            base_url=f"{gateway.url}/v1", api_key=gateway.api_key, max_retries=0
        ) as sdk:
            for model in ("openai/gpt-4o-mini", "gpt-4o-mini"):
                said = await sdk.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": "Hello"}]
                )
                assert said.choices[0].message.content == "Tides come and go."
            assert "openai/gpt-4o-mini" in [model.id async for model in sdk.models.list()]
            with pytest.raises(openai.AuthenticationError):
                await sdk.with_options(api_key="tg_wrong").models.list()
        async with anthropic.AsyncAnthropic(
            base_url=gateway.url, api_key=gateway.api_key, max_retries=0
        ) as other:
            heard = await other.messages.create(
                model="gpt-4o-mini",
                max_tokens=100,
                messages=[{"role": "user", "content": "Hello"}],
            )
            assert heard.content[0].text == "Tides come and go."
        assert {request.model for request in llmock.requests} == {"gpt-4o-mini"}
        assert "sk-canary" not in gateway.logs
        access = "".join(f.read_text("utf-8", "replace") for f in tmp_path.rglob("*.jsonl"))
        assert "sk-canary" not in access


async def test_without_a_key_the_demo_answers_as_before(tmp_path, env):
    async with (
        Gateway(tmp_path, DEFAULT, env={**env, "OPENAI_API_KEY": ""}) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.api_key) as sdk,
    ):
        said = await sdk.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "Hello!"}]
        )
        assert "Hello!" in (said.choices[0].message.content or "")
        assert [model.id async for model in sdk.models.list()] != []
