"""Which exchanges a scope matches, and the table that finds what was compiled for them."""

from __future__ import annotations

import pytest

from tidegate.runtime.scope import Scope, ScopeTable


@pytest.mark.parametrize(
    ("scope", "head", "matches"),
    [
        ({}, ("gateway", "a.test", "/x", "GET"), True),
        ({"paths": ["/v1/*"]}, ("gateway", "a.test", "/v1", "GET"), True),
        ({"paths": ["/v1/*"]}, ("gateway", "a.test", "/v1/", "GET"), True),
        ({"paths": ["/v1/*"]}, ("gateway", "a.test", "/v1/a/b", "GET"), True),
        ({"paths": ["/v1/*"]}, ("gateway", "a.test", "/v10", "GET"), False),
        ({"paths": ["/v1/*"]}, ("gateway", "a.test", "/", "GET"), False),
        ({"paths": ["/v1*"]}, ("gateway", "a.test", "/v10/x", "GET"), True),
        ({"paths": ["/v1"]}, ("gateway", "a.test", "/v1/", "GET"), False),
        ({"paths": ["/a/*/c"]}, ("gateway", "a.test", "/a/b/c", "GET"), True),
        ({"paths": ["/a/*/c"]}, ("gateway", "a.test", "/a/b/b/c", "GET"), False),
        ({"paths": ["/a.b"]}, ("gateway", "a.test", "/aXb", "GET"), False),
        ({"paths": ["/a", "/b"]}, ("gateway", "a.test", "/b", "GET"), True),
        ({"paths": ["/a"]}, ("gateway", "a.test", "/a\n", "GET"), False),
        ({"methods": ["post"]}, ("gateway", "a.test", "/", "POST"), True),
        ({"methods": ["POST"]}, ("gateway", "a.test", "/", "GET"), False),
        ({"hosts": ["A.test"]}, ("gateway", "a.test", "/", "GET"), True),
        ({"hosts": ["*.a.test"]}, ("gateway", "b.a.test", "/", "GET"), True),
        ({"hosts": ["*.a.test"]}, ("gateway", "c.b.a.test", "/", "GET"), True),
        ({"hosts": ["*.a.test"]}, ("gateway", "a.test", "/", "GET"), False),
        ({"hosts": ["*.a.test"]}, ("gateway", "evila.test", "/", "GET"), False),
        ({"hosts": ["*"]}, ("gateway", "", "/", "GET"), True),
        ({"listeners": ["admin"]}, ("gateway", "a.test", "/", "GET"), False),
        ({"paths": ["/a"], "methods": ["GET"]}, ("gateway", "a.test", "/a", "POST"), False),
    ],
)
def test_what_a_scope_matches(scope, head, matches):
    assert Scope(**scope).matcher()(*head) is matches


def test_the_table_builds_once_for_each_set_of_scopes_that_turns_up():
    built = []

    def build(matched):
        built.append(matched)
        return matched

    scopes = [Scope(), Scope(paths=("/v1/*",)), Scope(methods=("GET",)), Scope(paths=("/v1/*",))]
    table = ScopeTable(scopes, build)
    assert table.match("g", "h", "/v1/x", "GET") == (True, True, True, True)
    assert table.match("g", "h", "/v1/y", "GET") is table.match("g", "h", "/v1/x", "GET")
    assert table.match("g", "h", "/x", "POST") == (True, False, False, False)
    assert len(built) == 2


def test_a_table_without_scopes_builds_at_once():
    table = ScopeTable([Scope(), Scope()], list)
    assert table.match("g", "h", "/a", "GET") is table.match("g", "h", "/b", "POST")
    assert ScopeTable([], lambda matched: matched).match("g", "h", "/", "GET") == ()


def test_a_scope_says_what_it_is():
    assert str(Scope()) == "everything"
    assert str(Scope(paths=("/a", "/b"), methods=("get",))) == "methods=GET paths=/a,/b"
