"""HTTP: what a node answers, for programs in other languages.

Needs the `http` extra; `async with serve(node, "127.0.0.1:7480")` serves a node of one's own.
"""

from dhtos.http.server import HttpServer, serve

__all__ = ["HttpServer", "serve"]
