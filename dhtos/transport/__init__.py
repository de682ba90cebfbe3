"""Sockets: the shell that drives an engine on a running event loop."""
