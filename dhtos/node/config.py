"""What a node is told before it starts: one frozen value, read from Python, TOML or environment.

Everything is checked here, so that a started node never meets a bad setting. The names are the
same everywhere: `seeds` in TOML, `DHTOS_SEEDS` in the environment, `seeds=` in Python.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from dhtos.core.ids import Endpoint
from dhtos.core.limits import ALPHA, GROUP_SIZE, SEEDS_MAX, K
from dhtos.core.record import checked_labels
from dhtos.core.schema import PRICES, Schema, Value, default_schema, is_printable
from dhtos.core.schemas import Schemas
from dhtos.errors import ConfigError, UsageError
from dhtos.node.accept import Accept
from dhtos.node.command import LABEL
from dhtos.protocol.engine import EngineConfig
from dhtos.transport.udp import parse_host
from dhtos.trust.token import Token

PORT = 7400
SAMPLE_INTERVAL_S = 10.0
PRICE_LOAD_MAX = 1000
NAME_BYTES_MAX = 64
ENVIRONMENT_PREFIX = "DHTOS_"
_FOREIGN = frozenset(
    {
        *("DHTOS_KERNELS", "DHTOS_PASSPHRASE", "DHTOS_PURE", "DHTOS_TRACEBACK"),
        *("DHTOS_LEASE", "DHTOS_TOKEN", "DHTOS_FENCE"),  # of who runs under a lease
    }
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one node; raises ConfigError for what cannot be.

    `port=0` lets the system choose, `client=True` asks without serving, `state_dir=None` forgets
    everything at the end. `other_schemas` are those of machines that have not moved to `schema`,
    each of another version. With `visit`, a token of another cluster, a client asks that one and
    shows the membership in `credentials`. `advertise` and `labels` are told to the fleet beside
    what is sampled, `gateway` names a CSV file of machines that run no node, to be advertised by
    this one. Only claims that satisfy `accept` are granted. With `price_load` the `price_spot`
    follows what is granted: it is `price` where nothing is, and 1 + `price_load` times that where
    all is. With `commands` whoever holds a lease may run commands under it; a client ignores both.
    `http`, `http_names`, `http_public` and `kubernetes` are for `dhtos.http`, which the daemon
    starts.
    """

    host: str = "0.0.0.0"
    port: int = PORT
    seeds: tuple[str, ...] = ()
    advertise_host: str | None = None
    name: str | None = None
    state_dir: Path | None = None
    credentials: Path | None = None
    visit: str = ""
    schema: Schema | None = None
    other_schemas: tuple[Schema, ...] = ()
    client: bool = False
    control: bool = False
    control_path: Path | None = None
    control_users: bool = False
    gateway: Path | None = None
    accept: str | None = None
    price_load: float = 0.0
    commands: bool = False
    http: str | None = None
    http_names: tuple[str, ...] = ()
    http_public: bool = False
    kubernetes: Mapping[str, str] = field(default_factory=dict)
    sample: bool = True
    sample_interval_s: float = SAMPLE_INTERVAL_S
    advertise: Mapping[str, Value] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    group_size: int = GROUP_SIZE
    k: int = K
    alpha: int = ALPHA

    def __post_init__(self) -> None:
        self._normalise("seeds", _texts("seeds", self.seeds))
        for key in ("state_dir", "credentials", "control_path", "gateway"):
            self._normalise(key, _path(key, getattr(self, key)))
        self._normalise("advertise", dict(_mapping("advertise", self.advertise)))
        self._normalise("labels", dict(_mapping("labels", self.labels)))
        self._normalise("kubernetes", dict(_mapping("kubernetes", self.kubernetes)))
        self._normalise("http_names", _texts("http_names", self.http_names))
        self._check_addresses()
        for key in ("client", "control", "control_users", "sample", "commands", "http_public"):
            if type(getattr(self, key)) is not bool:
                raise _bad(key, "true or false", getattr(self, key))
        interval = self.sample_interval_s
        if type(interval) not in (int, float) or not 0.1 <= interval <= 3600:
            raise _bad("sample_interval_s", "0.1..3600 seconds", interval)
        self._check_price_load()
        if self.name is not None and not _is_name(self.name):
            raise _bad("name", f"1..{NAME_BYTES_MAX} printable bytes", self.name)
        if self.schema is not None and not isinstance(self.schema, Schema):
            raise _bad("schema", "a Schema, a table, or the path of a TOML file", self.schema)
        self._normalise("other_schemas", _schemas(self.other_schemas))
        Schemas(self.schema_or_default, self.other_schemas)  # raises where two have one version
        for key in ("group_size", "k", "alpha"):
            if type(getattr(self, key)) is not int:
                raise _bad(key, "a whole number", getattr(self, key))
        self.engine_config()
        self._check_visit()
        self._check_advertised()
        if self.accept is not None:
            Accept(_text("accept", self.accept), self.schema_or_default)  # raises
        if self.client and self.gateway is not None:
            raise ConfigError("a client advertises nothing: use gateway without client")
        if self.commands and not self.client:
            self._check_commands()

    def _normalise(self, key: str, value: object) -> None:
        object.__setattr__(self, key, value)

    def _check_addresses(self) -> None:
        parse_host(_text("host", self.host))
        if type(self.port) is not int or not 0 <= self.port <= 65535:
            raise _bad("port", "0..65535", self.port)
        if len(self.seeds) > SEEDS_MAX:
            raise _bad("seeds", f"at most {SEEDS_MAX} endpoints", len(self.seeds))
        for seed in self.seeds:
            parse_endpoint(seed)
        if self.advertise_host is not None:
            address = parse_host(_text("advertise_host", self.advertise_host))
            if address.is_unspecified or address.is_multicast:
                raise _bad("advertise_host", "an address others can send to", self.advertise_host)

        for key, value in self.kubernetes.items():
            _text(f"kubernetes: {key}", value)
        if self.http is not None:
            address = parse_host(parse_listen(_text("http", self.http))[0])
            inside = address.is_private or address.is_loopback or address.is_link_local
            if not self.http_public and (address.is_unspecified or not inside):
                raise ConfigError(
                    f"http serves whoever reaches {self.http}, and asks nobody who they are: "
                    f"use a loopback or private address, or set http_public"
                )

    def _check_visit(self) -> None:
        if not _text("visit", self.visit):
            return
        try:
            token = Token.parse(self.visit)
        except UsageError as error:
            raise ConfigError(f"visit: {error}") from error
        if not token.is_visit:
            raise ConfigError(
                "visit: this token lets machines or users join, and is for dhtos-node join; ask "
                "for the one that dhtos-node guests token prints"
            )

    def _check_price_load(self) -> None:
        """What the price follows must be for us to say."""
        load, (spot, listed) = self.price_load, PRICES
        if type(load) not in (int, float) or not 0 <= load <= PRICE_LOAD_MAX:
            raise _bad("price_load", f"0..{PRICE_LOAD_MAX}", load)
        if not load:
            return
        names = {attribute.name for attribute in self.schema_or_default.attributes}
        if listed not in names or spot not in {one.name for one in self.schema_or_default.dynamic}:
            raise ConfigError(f"price_load needs a schema with {listed} and a dynamic {spot}")
        if spot in self.advertise:
            raise ConfigError(
                f"price_load says what {spot} is, and so does advertise: advertise {listed} only"
            )

    def _check_commands(self) -> None:
        """Whoever reaches the port can claim, and then run: it must not be anybody."""
        for key, text in (("host", self.host), ("advertise_host", self.advertise_host)):
            address = None if text is None else parse_host(text)
            if address is not None and (address.is_unspecified or not address.is_private):
                raise ConfigError(
                    f"commands are run for whoever reaches the port, and {key} {text} is open to "
                    "more than a private network: give --host a loopback or private address"
                )

    def _check_advertised(self) -> None:
        schema = self.schema_or_default
        try:
            for name, value in self.advertise.items():
                schema.check(name, value)
        except UsageError as error:
            raise ConfigError(f"advertise: {error}") from error
        for label, text in self.labels.items():
            _text(f"labels: {label}", text)
        if LABEL in self.labels:
            raise ConfigError(f"labels: {LABEL!r} is told by the node itself: use commands")
        try:
            checked_labels(self.labels)
        except UsageError as error:
            raise ConfigError(f"labels: {error}") from error

    @property
    def schema_or_default(self) -> Schema:
        """The schema of the fleet."""
        return default_schema() if self.schema is None else self.schema

    @cached_property
    def vocabulary(self) -> Schema:
        """What a question may name: the attributes of all schemas that are known."""
        return Schemas(self.schema_or_default, self.other_schemas).vocabulary

    def engine_config(self) -> EngineConfig:
        """The part the engine needs."""
        return EngineConfig(
            k=self.k,
            alpha=self.alpha,
            group_size=self.group_size,
            client=self.client,
            other_schemas=self.other_schemas,
        )

    def merged(self, mapping: Mapping[str, object], *, where: str = "config") -> "Config":
        """This config with other settings in place of some; `where` names their source."""
        changes: dict[str, Any] = {}
        for key, value in mapping.items():
            if key not in KEYS:
                raise ConfigError(f"unknown key {key!r} in {where}{_nearest(key)}")
            changes[key] = value
        if "schema" in changes:
            changes["schema"] = _read_schema(changes["schema"])
        if isinstance(changes.get("other_schemas"), list | tuple):
            changes["other_schemas"] = tuple(map(_read_schema, changes["other_schemas"]))
        try:
            return replace(self, **changes)
        except ConfigError as error:
            raise ConfigError(f"{error} ({where})") from error

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object], *, where: str = "config") -> "Config":
        """Read settings under their own names; an unknown one is a ConfigError with the nearest."""
        return cls().merged(mapping, where=where)

    @classmethod
    def from_toml(cls, path: Path | str) -> "Config":
        """Read a TOML file; paths in it are relative to the file. Blocks for the disk."""
        path = Path(path).expanduser()
        mapping = _read_toml(path)
        for key in ("schema", "state_dir", "credentials", "control_path", "gateway"):
            value = mapping.get(key)
            if isinstance(value, str) and value:
                mapping[key] = str(path.parent / Path(value).expanduser())
        kubernetes = mapping.get("kubernetes")
        if isinstance(kubernetes, dict):
            for key in ("token", "ca"):
                if isinstance(kubernetes.get(key), str):
                    kubernetes[key] = str(path.parent / Path(kubernetes[key]).expanduser())
        others = mapping.get("other_schemas")
        if isinstance(others, list):
            mapping["other_schemas"] = [
                str(path.parent / Path(one).expanduser()) if isinstance(one, str) else one
                for one in others
            ]
        return cls.from_mapping(mapping, where=str(path))

    @classmethod
    def from_env(cls, environ: Mapping[str, str], base: "Config | None" = None) -> "Config":
        """`DHTOS_PORT=7401`, `DHTOS_SEEDS=a:1,b:2`, `DHTOS_LABELS=team=video` over `base`."""
        config = cls() if base is None else base
        changes: dict[str, object] = {}
        for variable, text in environ.items():
            if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _FOREIGN:
                continue
            key = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
            if key not in KEYS:
                hint = _nearest(key, lambda name: ENVIRONMENT_PREFIX + name.upper())
                raise ConfigError(f"unknown variable {variable} in the environment{hint}")
            changes[key] = _from_text(key, text, variable)
        return config.merged(changes, where="environment")

    def to_mapping(self) -> dict[str, object]:
        """Every setting in plain values, as `from_mapping` reads them (schemas by their names)."""
        plain: dict[str, object] = {}
        for key in KEYS:
            value = getattr(self, key)
            plain[key] = [*map(_plain, value)] if isinstance(value, tuple) else _plain(value)
        return plain


KEYS = tuple(entry.name for entry in fields(Config))
"""Every setting, in the order they are shown."""


def parse_endpoint(text: str) -> Endpoint:
    """`host:port` or `[v6]:port`; the host may be a name. Raises ConfigError.

    >>> parse_endpoint("[::1]:7400")
    ('::1', 7400)
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    plain = host[1:-1] if bracketed else host
    if not colon or not plain or (":" in plain) != bracketed or any(c.isspace() for c in text):
        raise ConfigError(f'a seed must be "host:port" or "[v6]:port", got {text!r}')
    if not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 65536:
        raise ConfigError(f"the port of a seed must be 1..65535, got {port!r} in {text!r}")
    return plain, int(port)


def parse_listen(text: str) -> Endpoint:
    """`address:port` to listen on, port 0 for any free one; raises ConfigError.

    >>> parse_listen("[::1]:0")
    ('::1', 0)
    """
    host, colon, port = text.rpartition(":")
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    numbered = port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) < 65536
    if not colon or (":" in plain) != (plain != host) or not numbered:
        raise ConfigError(f'http must be "ADDRESS:PORT", as "127.0.0.1:7480", got {text!r}')
    try:
        parse_host(plain)
    except ConfigError as error:
        raise ConfigError(f"http: {error}") from error
    return plain, int(port)


def format_endpoint(endpoint: Endpoint) -> str:
    """The text that `parse_endpoint` reads.

    >>> format_endpoint(("::1", 7400))
    '[::1]:7400'
    """
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bad(key: str, expected: str, got: object) -> ConfigError:
    return ConfigError(f"{key} must be {expected}, got {got!r}")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != "" and is_printable(value, NAME_BYTES_MAX)


def _nearest(key: str, spell: Callable[[str], str] = str) -> str:
    near = get_close_matches(key, KEYS, 1)
    if near:
        return f"; did you mean {spell(near[0])!r}?"
    return f"; known: {', '.join(map(spell, KEYS))}"


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise _bad(key, "a text", value)
    return value


def _texts(key: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise _bad(key, "a list of texts", value)
    return tuple(_text(key, part) for part in value)


def _path(key: str, value: object) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str | Path) or not str(value):
        raise _bad(key, "the path of a file or directory", value)
    return Path(value).expanduser()


def _mapping(key: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _bad(key, "a table of names and values", value)
    return value


def _read_toml(path: Path) -> dict[str, object]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist: give the path of a TOML file") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _schemas(value: object) -> tuple[Schema, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, Schema) for one in value):
        raise _bad("other_schemas", "a list of Schemas, tables, or paths of TOML files", value)
    return tuple(value)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return value.name if isinstance(value, Schema) else value


def _read_schema(value: object) -> Any:  # noqa: ANN401 - what is no schema is refused later
    """A schema that is given as a table, or as the path of a TOML file."""
    if isinstance(value, str | Path):
        return _schema_file(Path(value).expanduser())
    return Schema.from_mapping(value) if isinstance(value, Mapping) else value


def _schema_file(path: Path) -> Schema:
    try:
        return Schema.from_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"schema {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"schema {path} is not UTF-8") from error


def _from_text(key: str, text: str, variable: str) -> object:
    """The value of an environment variable, in the type its setting has."""
    match key:
        case "seeds" | "other_schemas" | "http_names":
            return tuple(part.strip() for part in text.split(",") if part.strip())
        case "client" | "control" | "control_users" | "sample" | "commands" | "http_public":
            word = text.strip().lower()
            if word in ("1", "true", "yes", "on"):
                return True
            if word in ("0", "false", "no", "off", ""):
                return False
            raise ConfigError(f"{variable} must be true or false, got {text!r}")
        case "port" | "group_size" | "k" | "alpha" | "sample_interval_s" | "price_load":
            value = parse_value(text)
            if isinstance(value, str | bool):
                raise ConfigError(f"{variable} must be a number, got {text!r}")
            return value
        case "advertise":
            return {name: parse_value(part) for name, part in _pairs(text, variable)}
        case "labels" | "kubernetes":
            return dict(_pairs(text, variable))
    return text if key == "visit" else text or None


def _pairs(text: str, variable: str) -> list[tuple[str, str]]:
    pairs = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"{variable} must be name=value,..., got {part!r}")
        pairs.append((name.strip(), value.strip()))
    return pairs


def parse_value(text: str) -> Value:
    """An attribute's value as people type it: true, false, a number, else a text.

    >>> parse_value("0.08"), parse_value("8"), parse_value("true"), parse_value("edge-7")
    (0.08, 8, True, 'edge-7')
    """
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if math.isfinite(number) and "_" not in text:
            return number
    return text
