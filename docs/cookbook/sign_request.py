"""Signs requests, so that upstream can tell that they came through here (RFC 9421)."""

import base64
import hashlib
import hmac

from tidegate.api import AddonConfig, Body, Exchange, Plugin, Secret, hook


class Options(AddonConfig):
    """The shared key (base64), its name, and what is signed: fields and derived components."""

    key: Secret
    key_id: str
    components: tuple[str, ...] = ("@method", "@path", "@query", "content-digest")


class SignRequest(Plugin[Options]):
    """The last transform in the file: what changes a request after it breaks the signature."""

    Config = Options

    @hook
    def startup(self, previous: object) -> None:
        self._key = base64.b64decode(self.config.key.get_secret_value(), validate=True)

    @hook(needs=Body(request=True))
    def transform_request(self, exchange: Exchange) -> None:
        """Digest of the body (RFC 9530), then the signature base, then its HMAC-SHA256."""
        headers, body = exchange.request.headers, exchange.request.raw_content or b""
        headers["content-digest"] = f"sha-256=:{_b64(hashlib.sha256(body).digest())}:"
        path, _, query = exchange.request.path.partition("?")
        derived = {"@method": exchange.request.method, "@path": path, "@query": f"?{query}"}
        derived["@authority"] = headers.get("host", exchange.host).lower()
        lines = [f'"{c}": {derived.get(c) or headers[c]}' for c in self.config.components]
        names = " ".join(f'"{c}"' for c in self.config.components)
        inputs = f'({names});created={int(exchange.now)};keyid="{self.config.key_id}"'
        base = "\n".join([*lines, f'"@signature-params": {inputs}'])
        headers["signature-input"] = f"tidegate={inputs}"
        headers["signature"] = f"tidegate=:{_b64(hmac.digest(self._key, base.encode(), 'sha256'))}:"


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
