"""The kinds of change: each says whether it is already true, and makes itself true."""

from provision.steps.base import Applied, Precondition, Progress, Step

__all__ = ["Applied", "Precondition", "Progress", "Step"]
