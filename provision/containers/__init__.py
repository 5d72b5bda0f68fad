"""Docker and Podman as sgprov sees them: what runs, which images are here, and the one command that starts a server."""
