"""What this host is, gathered by looking only."""
