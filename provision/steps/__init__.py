"""The kinds of change: each says whether it is already true, and makes itself true."""

from provision.steps.base import Progress, Step

__all__ = ["Progress", "Step"]
