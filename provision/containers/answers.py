"""What Docker and Podman say of themselves: JSON that may be anything."""

from __future__ import annotations

import json
from typing import Any


def as_object(given: object) -> dict[str, Any]:
    """The object that a text or a value is, an empty one where it is none."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            return {}
    # Podman says it as a list of one.
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
    return given if isinstance(given, dict) else {}
