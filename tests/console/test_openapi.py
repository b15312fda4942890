"""schemathesis over the admin API, as a platform administrator: no 5xx, and what is documented.

A few cases of each operation here; `TIDEGATE_EXAMPLES=200 uv run pytest tests/console -k openapi`
tries more.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings, strategies
from schemathesis.specs.openapi.checks import positive_data_acceptance
from schemathesis.specs.openapi.schemas import OpenApiSchema
from tidegate_console_api.door import Door

from .world import World, filled, opened, operations

LAST = ("store-sql.delete_team", "console.log_out")
EXAMPLES = int(os.environ.get("TIDEGATE_EXAMPLES", "6"))


def listed() -> list[str]:
    """All operations; those that end what others need come last."""
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as (door, _):
        found = operations(door)
    return sorted(found, key=lambda each: (each in LAST, found[each][0] == "DELETE", each))


@dataclass
class Shared:
    """One console for all operations."""

    door: Door
    world: World
    schema: OpenApiSchema


@pytest.fixture(scope="module")
def shared(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    state = tmp_path_factory.mktemp("openapi")
    shutil.copytree(template, state, dirs_exist_ok=True)
    with opened(state) as (door, _):
        schema = schemathesis.openapi.from_asgi("/api/openapi.json", door)
        yield Shared(door, World.read(state), schema)


@pytest.mark.parametrize("name", listed())
def test_an_operation_is_as_documented(shared: Shared, name: str):
    world = shared.world
    method, path = operations(shared.door)[name]
    operation = shared.schema[path][method]
    values = zip(path.split("/"), f"/api/v1{filled(path, world.red)}".split("/"), strict=False)
    real = {part[1:-1]: value for part, value in values if part.startswith("{")}
    headers = {"if-match": "*"} if method in ("PUT", "DELETE") else None
    good, bad = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
    cases = strategies.one_of(
        operation.as_strategy(good, path_parameters=real, headers=headers),
        operation.as_strategy(good),
        operation.as_strategy(bad),
    )

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES < 20,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=cases)
    def call(case: schemathesis.Case) -> None:
        case.call_and_validate(
            cookies={"tidegate_session": world.cookies["root"]},
            # Some rules no schema can tell: a cursor, a network, a URL with a host. They are 422.
            excluded_checks=[positive_data_acceptance],
        )

    call()
