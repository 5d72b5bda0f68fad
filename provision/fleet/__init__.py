"""Many hosts as easily as one: playbooks driven through ansible-runner, one report a host, and what differs."""
