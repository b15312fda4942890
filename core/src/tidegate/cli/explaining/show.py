"""A trace as a person reads it: the decision, then phase by phase who did what, and why."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

MARKS: Final = {"yes": ("✓", "green"), "no": ("✗", "bold red"), "nothing": ("-", "dim"),
                "skipped": ("·", "dim")}  # fmt: skip

NOTHING: Final = {
    "authenticate": "found no credential of its kind",
    "authorize": "no objection",
    "transform_request": "changed nothing",
    "cache_lookup": "not in the cache",
    "route": "no route of its own",
    "cache_store": "does not keep this answer",
    "transform_response": "changed nothing",
    "transform_event": "changed nothing",
    "log": "took note",
}
"""What a hook says that returns None."""

SAID: Final = {
    "principal": "the caller is {}",
    "upstream": "to {}",
    "response": "answers {} itself",
    "denial": "says no: {}",
    "sink": "keeps the answer",
    "events": "changed events",
    "raised": "failed: {}",
}


WOULD: Final = {
    "deny": "would say no:",
    "change": "would change",
    "answer": "would answer itself:",
    "route": "would route to",
    "authenticate": "would say that the caller is",
    "store": "would keep the answer",
    "fail": "would fail:",
}
"""What a shadow addon would do."""


def show(trace: dict[str, Any], note: str = "") -> None:
    """Print a trace."""
    console = Console(highlight=False)
    console.print()
    console.print(headline(trace))
    console.print(Text(facts(trace), style="dim"))
    console.print()
    console.print(steps(trace))
    if trace["left_out"]:
        console.print()
        console.print(Text("  Not in this pipeline", style="bold"))
        grid = Table.grid(padding=(0, 2))
        for one in trace["left_out"]:
            grid.add_row("   ", Text(one["addon"], style="dim"), Text(one["why"], style="dim"))
        console.print(grid)
    if note:
        console.print()
        console.print(Text(f"  {note}", style="dim"))
    console.print()


def headline(trace: dict[str, Any]) -> Text:
    """The decision, in bold."""
    status = trace["status"] or 0
    style = "bold green" if 0 < status < 400 else "bold yellow" if status < 500 else "bold red"
    decision, _, why = trace["decision"].partition(" - ")
    text = Text("  ")
    text.append(decision, style=style)
    if why:
        why, _, more = why.partition("; ")
        text.append(f" — {why}", style="bold")
        if more:
            text.append(f"\n  {more}")
    return text


def facts(trace: dict[str, Any]) -> str:
    """What was asked, by whom, and how long it took."""
    who = trace["principal"] or "anonymous"
    parts = [
        f"{trace['method']} {trace['path']}",
        f"host {trace['host']}",
        f"caller {who}",
        f"listener {trace['listener']}",
        f"hooks {duration(trace['hooks_us'])}",
    ]
    if trace["outcome"] != "answered":
        parts.append(trace["outcome"])
    return "  " + "  ·  ".join(parts)


def steps(trace: dict[str, Any]) -> Table:
    """One line for each hook, under its phase."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True, style="dim")
    before_upstream = True
    for phase in trace["phases"]:
        after = phase["phase"] in ("cache_store", "transform_response", "transform_event", "log")
        if before_upstream and after:
            before_upstream = False
            upstream_row(table, trace)
        name = f"  {phase['phase']}"
        for step in phase["steps"]:
            mark, style = MARKS[kind(step)]
            table.add_row(
                name, Text(mark, style=style), addon(step), said(phase["phase"], step), times(step)
            )
            name = ""
    if before_upstream:
        upstream_row(table, trace)
    return table


def upstream_row(table: Table, trace: dict[str, Any]) -> None:
    """What happened between request and response."""
    attempts = trace["attempts"]
    for attempt in attempts:
        failed = bool(attempt["error"])
        mark, style = MARKS["no" if failed else "yes"]
        told = attempt["error"] or f"answered {attempt['status']}"
        if "sent" in trace:
            told += " (a stand-in: nothing was sent)"
        name = "  upstream" if attempt is attempts[0] else ""
        table.add_row(Text(name, style="magenta"), Text(mark, style=style),
                      Text(attempt["upstream"]), Text(told), "")  # fmt: skip
    if not attempts:
        mark, style = MARKS["skipped"]
        table.add_row(Text("  upstream", style="magenta"), Text(mark, style=style), "",
                      Text("nothing was sent", style="dim"), "")  # fmt: skip


def kind(step: dict[str, Any]) -> str:
    """How a step is marked."""
    if step["result"] == "skipped":
        return "skipped"
    if step["result"] in ("denial", "raised") or any("deny" in s for s in step["shadows"]):
        return "no"
    acted = step["result"] != "nothing" or step["changed"] or step["shadows"]
    return "yes" if acted else "nothing"


def addon(step: dict[str, Any]) -> Text:
    """Its name, with its mode where that is not enforce."""
    text = Text("" if step["addon"] == "core" else step["addon"])
    if step["addon"] == "core":
        text.append("(core)", style="dim")
    if step["mode"] == "shadow":
        text.append(" shadow", style="yellow")
    return text


def said(phase: str, step: dict[str, Any]) -> Text:
    """What it decided, and why, in words."""
    if step["result"] == "skipped":
        return Text(step["why"], style="dim")
    if step["mode"] == "shadow":
        would = "; ".join(would_have(text) for text in step["shadows"])
        text = would or "would have done nothing"
        return Text(text, style="yellow" if would else "dim")
    if step["result"] == "nothing" and not step["changed"]:
        text = NOTHING[phase]
        return Text(f"{text}: {step['why']}" if step["why"] else text, style="dim")
    parts = []
    if step["result"] != "nothing":
        parts.append(SAID[step["result"]].format(step["detail"]))
    if step["changed"]:
        parts.append("; ".join(change(text) for text in step["changed"]))
    return Text("; ".join(parts))


def would_have(text: str) -> str:
    """A shadow decision in words."""
    decision, _, detail = text.partition(" ")
    return f"{WOULD.get(decision, decision)} {detail}".rstrip()


def change(text: str) -> str:
    """`+name #hash` in words."""
    if text[:1] in "+-":
        return ("adds " if text[0] == "+" else "removes ") + text[1:]
    return f"sets {text}"


def times(step: dict[str, Any]) -> str:
    """Its own time, and what it waited."""
    if step["result"] == "skipped":
        return ""
    told = duration(step["us"])
    if step["calls"] > 1:
        told = f"{step['calls']} x, {told}"
    if step["waited_us"] >= 100:
        told += f" (waited {duration(step['waited_us'])})"
    return told


def duration(us: float) -> str:
    """Microseconds as people read them."""
    if us < 1000:
        return f"{us:.0f} µs"
    return f"{us / 1000:.1f} ms"
