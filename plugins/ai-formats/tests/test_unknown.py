"""Fields that nobody has heard of yet: they come back where they were, or are reported."""

from __future__ import annotations

import copy
import json
import random

import pytest
from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.registry import NAMES, get_format

ODD = [{"a": [1.5, None, {"b": "é"}]}, "odd", 7, True, None, [], {}]
FREE = ("input", "args", "arguments", "schema", "parameters", "json", "properties", "usage")


def objects(value, path=""):
    """(path, object) of each object in a JSON value where fields of the API stand."""
    if isinstance(value, dict):
        yield path, value
        for key, one in value.items():
            if key not in FREE:
                yield from objects(one, f"{path}.{key}")
    elif isinstance(value, list):
        for one in value:
            yield from objects(one, f"{path}[]")


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_field_anywhere_comes_back(recordings, diff, name):
    format = get_format(name)
    chance = random.Random(7)
    lost = []
    for one in recordings:
        if one.format != name or one.kind != "json":
            continue
        for _ in range(3):
            body = json.loads(one.body)
            path, place = chance.choice(list(objects(body)))
            place["x_new_field"] = chance.choice(ODD)
            given = copy.deepcopy(body)
            written = format.write_response(format.parse_response(body), Losses(name))
            lost += [(one.number, path, *d) for d in diff(given, written)]
    assert lost == []


@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_field_of_an_answer_is_reported_by_every_other_format(recordings, name, target):
    if name == target:
        return
    format = get_format(name)
    for one in recordings[::5]:
        if one.format != name or one.kind != "json":
            continue
        body = json.loads(one.body)
        body["x_new_field"] = {"a": 1}
        losses = Losses(target)
        get_format(target).write_response(format.parse_response(body), losses)
        assert "x_new_field" in [warning.field for warning in losses.warnings], one.number


@pytest.mark.parametrize("name", NAMES)
def test_fields_that_are_null_or_missing_are_no_reason_to_fail(recordings, diff, name):
    format = get_format(name)
    chance = random.Random(11)
    for one in recordings:
        if one.format != name or one.kind != "json":
            continue
        body = json.loads(one.body)
        path, place = chance.choice(list(objects(body)))
        if not place:
            continue
        key = chance.choice(list(place))
        place[key] = None
        given = copy.deepcopy(body)
        try:
            parsed = format.parse_response(body)
        except ValueError:
            continue  # an answer without its content is none
        written = format.write_response(parsed, Losses(name))
        for where, was, is_ in diff(given, written):
            assert was is None, (one.number, path, key, where, is_)
