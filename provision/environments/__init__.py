"""Installed stacks on a host: staged, stamped, switched to, verified, rolled back, cleared away."""

from provision.environments.drift import note as note_drift
from provision.environments.garbage import collect_garbage, judged, superfluous
from provision.environments.installer import cache_directory
from provision.environments.layout import (
    Environment,
    Stamp,
    current,
    interpreter_of,
    is_changed,
    is_complete,
    is_stamped,
    list_environments,
    missing,
    path_for,
    previous,
    python_of,
    read_stamp,
)
from provision.environments.receipts import Receipt, environment_receipt, read_receipt, receipt_history, write_receipt
from provision.environments.switching import rollback, switch
from provision.environments.verification import Scan, Verification, repair, verify

__all__ = [
    "Environment",
    "Receipt",
    "Scan",
    "Stamp",
    "Verification",
    "cache_directory",
    "collect_garbage",
    "current",
    "environment_receipt",
    "interpreter_of",
    "is_changed",
    "is_complete",
    "is_stamped",
    "judged",
    "list_environments",
    "missing",
    "note_drift",
    "path_for",
    "previous",
    "python_of",
    "read_receipt",
    "read_stamp",
    "receipt_history",
    "repair",
    "rollback",
    "superfluous",
    "switch",
    "verify",
    "write_receipt",
]
