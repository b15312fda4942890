"""Writes the pages that are made from the code: `uv run python docs/build.py`.

A test fails when a page and the code say different things.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from tidegate.api.errors import CORE_CODES, ErrorCode

HERE = Path(__file__).parent


def errors() -> str:
    """`errors.md`: every error code that a caller can meet."""
    rows: dict[tuple[str, int], tuple[ErrorCode, str]] = {}
    for code in CORE_CODES:
        rows[code.code, code.status] = (code, "core")
    for point in sorted(entry_points(group="tidegate.plugins"), key=lambda p: p.name):
        for code in point.load().codes:
            rows.setdefault((code.code, code.status), (code, point.name))
    table = [
        f"| `{code.code}` | {code.status} | {code.message} | {where} |"
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
        "counted), and runs in the tests as it stands here. To make one your own, let",
        "`tidegate new-plugin` make a package, such as",
        "",
        "```sh",
        "tidegate new-plugin business-hours --kind authorize",
        "```",
        "",
        "put the recipe in place of its `plugin.py`, and name the class in its `__init__.py` and",
        "`pyproject.toml`.",
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


PAGES = {"errors.md": errors, "cookbook.md": cookbook}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
        print(f"wrote docs/{name}")
