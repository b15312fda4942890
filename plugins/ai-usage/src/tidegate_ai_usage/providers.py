"""Providers by host, and their model APIs by path: how traffic is recognised. Data, no I/O."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple


class Provider(NamedTuple):
    """A provider. `prices` is its name in the price table, "" where it has none there;
    `credential` is the field of its keys."""

    name: str
    prices: str
    credential: str = "authorization"


_X_API_KEY: Final = "x-api-key"
PROVIDERS: Final = {
    provider.name: provider
    for provider in (
        Provider("anthropic", "anthropic", _X_API_KEY),
        Provider("azure", "azure", "api-key"),
        Provider("bedrock", "aws"),
        Provider("cerebras", "cerebras"),
        Provider("cloudflare", "cloudflare"),
        Provider("cohere", "cohere"),
        Provider("databricks", "databricks"),
        Provider("deepinfra", ""),
        Provider("deepseek", "deepseek"),
        Provider("fireworks", "fireworks"),
        Provider("gemini", "google", "x-goog-api-key"),
        Provider("github-copilot", "github-copilot"),
        Provider("groq", "groq"),
        Provider("huggingface", ""),
        Provider("jina", ""),
        Provider("minimax", "minimax"),
        Provider("mistral", "mistral"),
        Provider("moonshot", "moonshotai"),
        Provider("nebius", "huggingface_nebius"),
        Provider("novita", "novita"),
        Provider("ollama", ""),
        Provider("openai", "openai"),
        Provider("openrouter", "openrouter"),
        Provider("perplexity", "perplexity"),
        Provider("sambanova", "huggingface_sambanova"),
        Provider("together", "together"),
        Provider("vertex", "google"),
        Provider("voyage", "voyageai"),
        Provider("xai", "x-ai"),
        Provider("zai", "zai"),
        Provider("zhipu", "zhipuai"),
    )
}

_HOSTS: Final = {
    "api.anthropic.com": "anthropic",
    "api.cerebras.ai": "cerebras",
    "api.cloudflare.com": "cloudflare",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "api.deepinfra.com": "deepinfra",
    "api.deepseek.com": "deepseek",
    "api.fireworks.ai": "fireworks",
    "generativelanguage.googleapis.com": "gemini",
    "aiplatform.googleapis.com": "vertex",
    "api.githubcopilot.com": "github-copilot",
    "api.groq.com": "groq",
    "router.huggingface.co": "huggingface",
    "api.jina.ai": "jina",
    "api.minimax.io": "minimax",
    "api.mistral.ai": "mistral",
    "codestral.mistral.ai": "mistral",
    "api.moonshot.ai": "moonshot",
    "api.moonshot.cn": "moonshot",
    "api.studio.nebius.ai": "nebius",
    "api.novita.ai": "novita",
    "ollama.com": "ollama",
    "api.openai.com": "openai",
    "eu.api.openai.com": "openai",
    "us.api.openai.com": "openai",
    "openrouter.ai": "openrouter",
    "api.perplexity.ai": "perplexity",
    "api.sambanova.ai": "sambanova",
    "api.together.xyz": "together",
    "api.together.ai": "together",
    "api.voyageai.com": "voyage",
    "api.x.ai": "xai",
    "eu-west-1.api.x.ai": "xai",
    "us-east-1.api.x.ai": "xai",
    "api.z.ai": "zai",
    "open.bigmodel.cn": "zhipu",
}
_PATTERNS: Final = (
    (re.compile(r"bedrock-runtime(?:-fips)?\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?"), "bedrock"),
    (re.compile(r"[a-z0-9-]+\.openai\.azure\.(?:com|us)"), "azure"),
    (re.compile(r"[a-z0-9-]+\.(?:cognitiveservices|services\.ai)\.azure\.com"), "azure"),
    (re.compile(r"[a-z0-9.-]+\.(?:inference|models)\.ai\.azure\.com"), "azure"),
    (re.compile(r"[a-z0-9-]+-aiplatform\.googleapis\.com"), "vertex"),
    (re.compile(r"aiplatform\.[a-z0-9-]+\.rep\.googleapis\.com"), "vertex"),
    (re.compile(r"[a-z0-9-]+\.cloud\.databricks\.com"), "databricks"),
    (re.compile(r"[a-z0-9.-]+\.azuredatabricks\.net"), "databricks"),
    (re.compile(r"api\.[a-z0-9-]+\.githubcopilot\.com"), "github-copilot"),
)  # fmt: skip


@lru_cache(maxsize=1024)
def provider_of(host: str) -> Provider | None:
    """The provider that a host is of. `host` is lower case, without port.

    >>> provider_of("api.openai.com").name
    'openai'
    """
    name = _HOSTS.get(host)
    if name is None:
        name = next((name for pattern, name in _PATTERNS if pattern.fullmatch(host)), None)
    return None if name is None else PROVIDERS[name]


class Api(NamedTuple):
    """A model API: its format, and what kind of call it is. `model`: as the path names it."""

    format: str
    kind: str
    model: str = ""


_APIS: Final = (
    (r"/chat/completions", "openai-chat", "chat"),
    (r"/responses", "openai-responses", "chat"),
    (r"/v1/messages", "anthropic-messages", "chat"),
    (r"/models/(?P<gemini>[^/:]+):(?:streamG|g)enerateContent", "gemini", "chat"),
    (r"/models/(?P<vertex>[^/:]+):(?:streamR|r)awPredict", "vertex-predict", "chat"),
    (r"/models/(?P<embed>[^/:]+):(?:e|batchE)mbedContents?", "gemini", "embeddings"),
    (r"/models/(?P<predict>[^/:]+):predict", "vertex-predict", "embeddings"),
    (r"/model/(?P<converse>[^/]+)/converse(?:-stream)?", "bedrock-converse", "chat"),
    (r"/model/(?P<invoke>[^/]+)/invoke(?:-with-response-stream)?", "bedrock-invoke", "chat"),
    (r"/v2/chat", "cohere-chat", "chat"),
    (r"/v1/chat", "cohere-chat-v1", "chat"),
    (r"/api/(?:chat|generate)", "ollama-chat", "chat"),
    (r"/completions", "openai-completions", "chat"),
    (r"/embeddings?|/v[12]/embed|/api/embed", "embeddings", "embeddings"),
    (r"/rerank", "rerank", "rerank"),
    (r"/images/(?:generations|edits|variations)", "images", "images"),
    (r"/audio/speech", "speech", "speech"),
    (r"/audio/(?:transcriptions|translations)", "transcription", "transcription"),
    (r"/moderations", "moderations", "moderations"),
    (r"/ocr", "ocr", "ocr"),
)  # fmt: skip
_PATH: Final = re.compile(
    r"(?:/[^/]+)*?(?:" + "|".join(f"(?P<_{i}>{path})" for i, (path, _, _) in enumerate(_APIS)) + ")"
)


@lru_cache(maxsize=4096)
def api_of(path: str) -> Api | None:
    """The model API at the end of a path; None: it is none.

    >>> api_of("/openai/deployments/mine/chat/completions").format
    'openai-chat'
    """
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    groups = found.groupdict()
    at = next(i for i in range(len(_APIS)) if groups[f"_{i}"] is not None)
    _, format, kind = _APIS[at]
    model = next((v for k, v in groups.items() if not k.startswith("_") and v), "")
    if format == "bedrock-invoke" and "embed" in model:
        kind = "embeddings"
    return Api(format, kind, model)
