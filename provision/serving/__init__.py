"""Launch arguments by engine version, the life of a server, and the smoke test that says whether it serves."""
