"""Which login goes to which index, of all the ways in which uv is told."""

from __future__ import annotations

import pytest

from provision.bundle.logins import logins, origin
from provision.host.local import LocalHost


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {}),
        ({"UV_DEFAULT_INDEX": "https://index.example.org/simple"}, {}),
        (
            {"UV_DEFAULT_INDEX": "https://me:a%40b@index.example.org:8443/simple"},
            {"https://index.example.org:8443": ("me", "a@b")},
        ),
        (
            {"UV_INDEX": "https://token@one.example.org/simple ours=https://two.example.org/simple"},
            {"https://one.example.org": ("token", "")},
        ),
        (
            {
                "UV_INDEX": "our-own=https://two.example.org/simple",
                "UV_INDEX_OUR_OWN_USERNAME": "me",
                "UV_INDEX_OUR_OWN_PASSWORD": "word",
            },
            {"https://two.example.org": ("me", "word")},
        ),
        ({"UV_FIND_LINKS": "/srv/wheels,https://me:b@c.example.org/"}, {"https://c.example.org": ("me", "b")}),
        ({"UV_INDEX_URL": "http://me:b@c.example.org/?q=http://x:y@z"}, {"http://c.example.org": ("me", "b")}),
    ],
)
def test_from_every_variable(variables: dict[str, str], expected: dict[str, tuple[str, str]]) -> None:
    assert logins(LocalHost(variables)) == expected


def test_an_origin_has_no_login_and_no_path() -> None:
    assert origin("https://me:word@Index.example.org:8443/simple/a.whl#sha256=1") == "https://index.example.org:8443"
    assert origin("/srv/wheels/a.whl") == "://"
