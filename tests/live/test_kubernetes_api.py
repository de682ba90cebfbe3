"""The API server over TLS and otherwise: whom it is told, who is believed, what is no answer."""

import shutil
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from api_server import ApiServer as Server

from dhtos.adapters import kubernetes_api
from dhtos.adapters.kubernetes_api import ApiServer, Settings
from dhtos.errors import MalformedMessage, Refused, Unreachable


def certificate(folder):
    """A certificate of its own for 127.0.0.1, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: it makes the certificate")
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
        "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def test_a_server_is_believed_by_its_certificate(run, tmp_path):
    cert, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    token = tmp_path / "token"
    token.write_text("first")

    async def main():
        with Server() as server:
            server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
            url = server.url.replace("http:", "https:")
            api = ApiServer(Settings(url, token, cert))
            await api.bind("default", "p", "uid", "n1")
            token.write_text("second")  # a token of a cluster is changed at times
            pod = await api.pod("default", "p")
            assert pod is not None
            assert pod.spec.node_name == "n1"
            assert server.tokens == {"Bearer first", "Bearer second"}
            with pytest.raises(Unreachable, match=r"certificate verify failed|CERTIFICATE_VERIFY"):
                await ApiServer(Settings(url, token)).pod("default", "p")
            assert len(server.tokens) == 2

    run(main)


def test_what_a_server_refuses_and_names_that_are_quoted(run):
    async def main():
        with Server() as server:
            api = ApiServer(Settings(server.url))
            assert await api.pod("default", "nobody") is None
            await api.bind("a/b", "p?x=1", "uid", "n1")
            assert server.bound[0]["path"] == "/api/v1/namespaces/a%2Fb/pods/p%3Fx%3D1/binding"
            server.refuse = 403
            with pytest.raises(Refused, match="answered 403: pod is already assigned"):
                await api.bind("default", "p", "uid", "n1")
            assert server.tokens == {None}

    run(main)


class Answers:
    """A server that answers everything with the same bytes, or closes."""

    def __init__(self, status, body, headers=()):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Says nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self):
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.mark.parametrize(
    ("status", "body", "headers", "error", "words"),
    [
        (200, b"no json", (), MalformedMessage, "sent what is no pod"),
        (200, b"[]", (), MalformedMessage, "sent what is no pod"),
        (200, b"[" * 10**6, (), MalformedMessage, "sent what is no pod"),
        (500, b"\xff\xfe", (), Refused, "the API server answered 500"),
        (401, b'{"message": "Unauthorized"}', (), Refused, "answered 401: Unauthorized"),
        # A token is not carried to where a server sends it.
        (302, b"", (("Location", "http://127.0.0.1:9/"),), Refused, "answered 302"),
    ],
    ids=["text", "array", "deep", "bytes", "unauthorized", "redirect"],
)
def test_answers_that_are_none(run, status, body, headers, error, words):
    async def main():
        with Answers(status, body, headers) as url, pytest.raises(error, match=words):
            await ApiServer(Settings(url)).pod("default", "p")

    run(main)


def test_silence_and_closed_ports_are_unreachable(run, monkeypatch, tmp_path):
    monkeypatch.setattr(kubernetes_api, "CALL_S", 0.2)

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as mute:
            url = f"http://127.0.0.1:{mute.getsockname()[1]}"
            with pytest.raises(Unreachable, match="does not answer: timed out"):
                await ApiServer(Settings(url)).pod("default", "p")
        with pytest.raises(Unreachable, match="does not answer"):
            await ApiServer(Settings(url)).bind("default", "p", "uid", "n1")
        gone = Settings(url, tmp_path / "gone")
        with pytest.raises(Unreachable, match="No such file"):
            await ApiServer(gone).pod("default", "p")

    run(main)
