"""Which fields an operator may write."""

from __future__ import annotations

import pytest

from tidegate.api.fields import CARRIER_FIELDS, field_name, field_value
from tidegate.runtime.kinds import HOP_BY_HOP


@pytest.mark.parametrize("name", ["x-a", "Cache-Control", "x_y.z", "SET-cookie"])
def test_ordinary_names_pass_as_they_are(name):
    assert field_name(name) == name


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\n", "caf\u00e9", "(x)"])
def test_what_is_no_token_is_refused(name):
    with pytest.raises(ValueError, match="not a field name"):
        field_name(name)


def test_what_the_carriers_strip_from_each_hop_is_refused():
    assert {name.decode() for name in HOP_BY_HOP} <= CARRIER_FIELDS
    for name in CARRIER_FIELDS - {"host"}:
        with pytest.raises(ValueError, match="belongs to the connection"):
            field_name(name.upper())
    with pytest.raises(ValueError, match="preserve_host"):
        field_name("Host")


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\x00b", "\x7f", "\x1b[0m"])
def test_control_characters_are_refused(value):
    with pytest.raises(ValueError, match="control characters"):
        field_value(value)


def test_space_around_a_value_is_not_part_of_it():
    assert field_value(" a\tb ") == "a\tb"
