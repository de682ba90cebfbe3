"""The API server of a cluster: two calls, made in a thread with what the standard library has."""

import asyncio
import ipaddress
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlsplit

import msgspec

from dhtos.adapters.kubernetes_pods import Pod
from dhtos.errors import ConfigError, MalformedMessage, Refused, Unreachable

CALL_S = 5.0
_ANSWER_BYTES_MAX = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the API server is, who we are to it, and which label holds the names of nodes."""

    url: str = ""
    token: Path | None = None
    ca: Path | None = None
    label: str = "name"

    @classmethod
    def of(cls, mapping: Mapping[str, str]) -> Self:
        """The settings of a table; raises ConfigError."""
        known = [one.name for one in fields(cls)]
        for key in mapping.keys() - set(known):
            near = get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"kubernetes: unknown key {key!r}; {hint}")
        url = mapping.get("url", "").rstrip("/")
        token = Path(mapping["token"]) if mapping.get("token") else None
        ca = Path(mapping["ca"]) if mapping.get("ca") else None
        _check(url, token, ca)
        return cls(url, token, ca, mapping.get("label") or "name")


def _check(url: str, token: Path | None, ca: Path | None) -> None:
    for path in (token, ca):
        if path is not None and not path.is_file():
            raise ConfigError(f"kubernetes: {path} is no file; give the path of one")
    if not url:
        return
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https") or parts.query or parts.username:
        raise ConfigError(f"kubernetes: url must be https://HOST:PORT, got {url!r}")
    if parts.scheme == "http" and token is not None and not _is_loopback(host):
        raise ConfigError(
            f"kubernetes: {url} would send the token in the clear; use https, or http to loopback"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ApiServer:
    """Reads pods and binds them; a call ends within five seconds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opener: urllib.request.OpenerDirector | None = None

    async def pod(self, namespace: str, name: str) -> Pod | None:
        """A pod as it is, None where there is none; raises Refused and Unreachable."""
        status, body = await self._call("GET", _path(namespace, name), None)
        if status == 404:
            return None
        _expect(status, body, 200)
        try:
            return msgspec.json.decode(body, type=Pod)
        except (msgspec.DecodeError, RecursionError) as error:
            raise MalformedMessage(f"the API server sent what is no pod: {error}") from error

    async def bind(self, namespace: str, name: str, uid: str, node: str) -> None:
        """Bind a pod to a node; raises Refused (409 where it is bound), Unreachable."""
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        status, body = await self._call(
            "POST", _path(namespace, name) + "/binding", msgspec.json.encode(binding)
        )
        _expect(status, body, 201, 200)

    async def _call(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        return await asyncio.to_thread(self._blocking, method, path, body)

    def _blocking(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        settings = self._settings
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        try:
            if settings.token is not None:
                token = settings.token.read_text(encoding="ascii").strip()  # it is changed at times
                headers["Authorization"] = f"Bearer {token}"
            if self._opener is None:
                self._opener = _opener(settings)
            request = urllib.request.Request(settings.url + path, body, headers, method=method)
            with self._opener.open(request, timeout=CALL_S) as answer:
                return answer.status, answer.read(_ANSWER_BYTES_MAX)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(_ANSWER_BYTES_MAX)
        except (OSError, ValueError) as error:  # of the file, the network, or HTTP itself
            reason = getattr(error, "reason", None) or error
            raise Unreachable(f"the API server {settings.url} does not answer: {reason}") from error


def _opener(settings: Settings) -> urllib.request.OpenerDirector:
    """No proxies, and no redirects: the token is for this server."""
    context = ssl.create_default_context(cafile=settings.ca)
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"


class _Status(msgspec.Struct, frozen=True):
    message: str = ""


def _expect(status: int, body: bytes, *wanted: int) -> None:
    """Raise Refused with what the API server says."""
    if status in wanted:
        return
    try:
        said = msgspec.json.decode(body, type=_Status).message
    except (msgspec.DecodeError, RecursionError):
        said = ""
    raise Refused(f"the API server answered {status}{': ' + said[:300] if said else ''}")
