"""From a bare GPU machine to a verified LLM endpoint."""

__version__ = "0.1.0"
