"""Which stack a host gets, and why not each of the others: data in, `Decision` or `UnsupportedHost` out."""

from provision.decision.choose import Question, decide, weigh_targets
from provision.decision.model import Candidate, Decision, Fit, Hosting, Places, Previous

__all__ = ["Candidate", "Decision", "Fit", "Hosting", "Places", "Previous", "Question", "decide", "weigh_targets"]
