"""Experiments on running servers: what happens when one is killed, and whether a client can change models unchanged."""
