"""The policy of the page on policies is one."""

from __future__ import annotations

import re
from pathlib import Path

from tidegate.runtime.registry import policy_class
from tidegate.testing import Harness, Use, make_exchange

PAGE = (Path(__file__).parents[2] / "docs/policies.md").read_text()
MIDNIGHT = 1_700_000_000.0 // 86_400 * 86_400


async def test_the_policy_works_as_printed() -> None:
    found = re.search(r"```python\n(# business_hours.py\n.*?)```", PAGE, re.S)
    assert found is not None
    policy = policy_class("business_hours.py", found[1], None)
    async with Harness(Use(policy, {"opens": 9})) as harness:
        denials = [
            (await harness.send(make_exchange(now=MIDNIGHT + hour * 3600))).denial
            for hour in (3, 9, 12, 18)
        ]
    assert [denial.code if denial else None for denial in denials] == [
        "closed",
        None,
        None,
        "closed",
    ]


def test_the_error_shown_is_the_one_of_that_line() -> None:
    found = re.search(r"```python\n(# business_hours.py\n.*?)```", PAGE, re.S)
    shown = re.search(r"business_hours.py:(\d+): `(.*?)`", PAGE)
    assert found is not None
    assert shown is not None
    assert found[1].splitlines()[int(shown[1]) - 1].strip() == f"{shown[2]}:"
