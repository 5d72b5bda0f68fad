"""Lockfiles: which there are, what they pin, and what their wheels hold."""
