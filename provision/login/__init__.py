"""Keys for registries and hubs: read without a trace, proved before anything is downloaded, kept where tools look."""
