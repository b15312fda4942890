"""Writes the pages that are made from the code: `uv run python docs/build.py`.

A test fails when a page and the code say different things.
"""

from __future__ import annotations

import inspect
import sys
from importlib.metadata import entry_points
from pathlib import Path

from tidegate.api import hookspecs
from tidegate.api.errors import CORE_CODES, ErrorCode

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from reference import reference  # noqa: E402


def errors() -> str:
    """`errors.md`: every error code that a caller can meet."""
    rows: dict[tuple[str, int], tuple[ErrorCode, list[str]]] = {}
    for code in CORE_CODES:
        rows[code.code, code.status] = (code, ["core"])
    for point in sorted(entry_points(group="tidegate.plugins"), key=lambda p: p.name):
        for code in point.load().codes:
            rows.setdefault((code.code, code.status), (code, []))[1].append(point.name)
    table = [
        f"| `{code.code}` | {code.status} | {code.message} | {', '.join(where)} |"
        for _, (code, where) in sorted(rows.items(), key=lambda r: (r[0][1], r[0][0]))
    ]
    return "\n".join(
        [
            "# Error codes",
            "",
            "An error of the gateway is JSON, whatever went wrong, and carries the request id that",
            "`X-Request-Id` has too:",
            "",
            "```json",
            '{"error": {"code": "rate_limited", "message": "…", "request_id": "…"}}',
            "```",
            "",
            "The code is stable; the message may change. 429 and 503 carry `Retry-After`. Once a",
            "stream has begun, an error is an event of the stream, which then ends without its",
            "normal end mark.",
            "",
            "On the paths of model APIs (`/v1/chat/completions`, `/v1/messages`, …) errors have",
            "the shape of that API, so that its official clients raise their own exceptions; the",
            "code and the request id stand beside it; cut streams end with its own error event.",
            "",
            "| code | status | message | from |",
            "| --- | --- | --- | --- |",
            *table,
            "",
            "Made from the code by `uv run python docs/build.py`.",
            "",
        ]
    )


RECIPES = {
    "Business hours": "business_hours",
    "A field for each team": "team_header",
    "Personal data in header fields": "scrub_headers",
    "A canary by cookie": "canary_cookie",
    "Deny networks": "deny_cidr",
    "Mask members of JSON": "mask_json",
    "What it cost": "cost_header",
    "Maintenance page": "maintenance",
    "Signed requests": "sign_request",
    "A/B by principal": "ab_principal",
    "A cap on answers": "cap_response",
    "Audit to a web hook": "audit_webhook",
}
"""Title and file of each recipe of the cookbook, in the order of the page."""


def cookbook() -> str:
    """`cookbook.md`: the policies in `cookbook/`, each with its `[[addon]]` table."""
    config = (HERE / "cookbook/addons.toml").read_text(encoding="utf-8")
    tables = dict(zip(RECIPES.values(), config.split("[[addon]]\n")[1:], strict=True))
    lines = [
        "# Cookbook",
        "",
        "Twelve policies to start from. Each is one file of at most 40 lines (blank ones not",
        "counted), and runs in the tests as it stands here. One runs as it is, with its options in",
        "the table that `addons.toml` has for it:",
        "",
        "```toml",
        "[[addon]]",
        'file = "docs/cookbook/maintenance.py"',
        "```",
        "",
        "Save the recipe as you change it: a running gateway takes each version up. When it is to",
        "be shared, `tidegate new-plugin` makes a package for it.",
        "",
        "[plugins.md](plugins.md) says what a hook may return and what happens when it fails.",
        "",
        *(f"- [{title}](cookbook/{name}.py)" for title, name in RECIPES.items()),
    ]
    for title, name in RECIPES.items():
        code = (HERE / f"cookbook/{name}.py").read_text(encoding="utf-8")
        summary, _, rest = code.removeprefix('"""').partition('"""')
        table = f"[[addon]]\n{tables[name].rstrip()}"
        lines += ["", f"## {title}", "", summary, "", "```toml", table, "```"]
        lines += ["", "```python", rest.strip(), "```"]
    return "\n".join([*lines, "", "Made from the code by `uv run python docs/build.py`.", ""])


def hooks() -> str:
    """`hooks.md`: every hook with its signature, its text and its example."""
    intro = inspect.getdoc(hookspecs) or ""
    lines = ["# Hooks", "", intro]
    for name in hookspecs.HOOKS:
        spec = getattr(hookspecs.HookSpecs, name)
        text, _, example = (inspect.getdoc(spec) or "").partition("Example:\n")
        parameters = ", ".join(inspect.signature(spec).parameters)
        lines += ["", f"## {name}", "", f"`{name}({parameters})`", "", text.strip(), ""]
        lines += ["```python", inspect.cleandoc(f"\n{example}").rstrip(), "```"]
    return "\n".join([*lines, "", "Made from the code by `uv run python docs/build.py`.", ""])


PAGES = {"errors.md": errors, "cookbook.md": cookbook, "hooks.md": hooks, "api.md": reference}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
        print(f"wrote docs/{name}")
