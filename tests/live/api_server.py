"""A stand-in for the API server of a cluster: pods that exist, Bindings that it takes or not."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class ApiServer:
    """Listens on loopback from `with` on; `pods` by path, `bound` what was posted."""

    def __init__(self) -> None:
        self.pods: dict[str, dict] = {}
        self.bound: list[dict] = []
        self.tokens: set[str | None] = set()
        self.refuse = 0  # a status to answer Bindings with
        self.hang_up = False  # drop the connection once a Binding was taken
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.tokens.add(self.headers.get("Authorization"))
                pod = outer.pods.get(self.path)
                self.answer(200 if pod else 404, pod or {"message": "pods not found"})

            def do_POST(self) -> None:
                outer.tokens.add(self.headers.get("Authorization"))
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if outer.refuse:
                    self.answer(outer.refuse, {"message": "pod is already assigned to node n9"})
                    return
                outer.bound.append({"path": self.path, **body})
                path = self.path.removesuffix("/binding")
                outer.pods.setdefault(path, pod_of(body))["spec"]["nodeName"] = body["target"][
                    "name"
                ]
                if outer.hang_up:
                    self.close_connection = True
                    return
                self.answer(201, {"status": "Success"})

            def answer(self, status: int, document: dict) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def pod_of(binding: dict) -> dict:
    """The pod that a Binding is about."""
    return {"metadata": binding["metadata"], "spec": {}, "status": {"phase": "Running"}}
