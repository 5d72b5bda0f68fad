"""The seam between sgprov and a machine: what may look (`HostView`) and what may change (`Host`)."""

from provision.host.view import (
    CHANGE_TIMEOUT_S,
    QUERY_TIMEOUT_S,
    RESERVE_BYTES,
    DiskSpace,
    Host,
    HostView,
    Listener,
    Outcome,
    PathInfo,
    Process,
    Reach,
)

__all__ = [
    "CHANGE_TIMEOUT_S",
    "QUERY_TIMEOUT_S",
    "RESERVE_BYTES",
    "DiskSpace",
    "Host",
    "HostView",
    "Listener",
    "Outcome",
    "PathInfo",
    "Process",
    "Reach",
]
