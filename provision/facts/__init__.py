"""What this host is, gathered by looking only."""

from provision.facts.gather import gather
from provision.facts.model import Facts
from provision.facts.shown import describe, to_json

__all__ = ["Facts", "describe", "gather", "to_json"]
