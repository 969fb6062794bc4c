"""The keys of bots.yaml: frozen models, one per mapping. Meaning and defaults are documented at each field.

Nothing here reads files or the environment; `load` does, and records the location of each value.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from chatbot.actions import APOLOGY
from chatbot.config.document import Document
from chatbot.config.service import Duration, Secret, Service, ServiceConfig, Settings, Text, checked
from chatbot.config.source_location import DataPath
from chatbot.durations import format_duration, parse_duration
from chatbot.errors import ConfigError
from chatbot.model import ThreadId, UserId
from chatbot.service.endpoint import ConnectionString
from chatbot.stores import open_store
from chatbot.stores.url import FORMS

EMULATOR: Final = "emulator"
"""The value of `service:` that selects the emulator in the daemon's process instead of a resource of Azure."""

# Edits find a sent message by its outbox row, so rows must be kept for a while.
_MIN_RETENTION: Final = timedelta(hours=1)

_MIN_KEY_LENGTH: Final = 16

# The service's quota: list messages 200 times per minute, user and thread.
_MIN_POLL_INTERVAL: Final = timedelta(milliseconds=300)


def _name_of_bot(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        message = f'"{name}" is not a valid name of a bot: use letters, digits, - and _ (people see display_name)'
        raise ValueError(message)
    return name


_THREAD_ID = re.compile(r"\d+:\S+")


def _threads(value: object) -> object:
    if value == "all":
        return value
    if isinstance(value, list) and value and all(isinstance(thread, str) for thread in value):
        if wrong := next((thread for thread in value if not _THREAD_ID.fullmatch(thread)), None):
            message = (
                f'{wrong!r} is not a thread id: expected one like "19:…@thread.v2", as `chatbot threads list` shows it'
            )
            raise ValueError(message)
        return tuple(value)
    message = 'this must be all, or a list of thread ids ("19:…@thread.v2")'
    raise ValueError(message)


def _users(value: object) -> object:
    if isinstance(value, list) and value and all(isinstance(user, str) and ":" in user for user in value):
        return tuple(value)
    message = 'this must be a list of user ids ("8:acs:…")'
    raise ValueError(message)


def _history(value: object) -> object:
    if value in ("none", "all"):
        return value
    try:
        return parse_duration(value)
    except ValueError as error:
        message = f"{error}; or write none, or all"
        raise ValueError(message) from None


def _plugin(value: object) -> object:
    if isinstance(value, str):
        return {"module": value}
    if isinstance(value, dict):
        return value
    message = "this must be an import path (plugins.echo), or a mapping with module and settings"
    raise ValueError(message)


def _composed(name: str) -> str:
    """Return the name of a module in the Unicode form that Python uses for identifiers."""
    return unicodedata.normalize("NFC", name)


def _name_of_class(name: str) -> str:
    if all(part.isidentifier() for part in name.split(".")):
        return name
    message = "this is not the name of a class, such as KeyError or httpx.HTTPStatusError"
    raise ValueError(message)


def _user(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"\d+:\S+", value):
        return value
    message = 'this is not the id of a user ("8:acs:…"); `chatbot identity create` creates one and prints its id'
    raise ValueError(message)


def _apology(value: object) -> object:
    return None if value is False or (isinstance(value, str) and value.strip().lower() == "off") else value


LOOPBACK: Final = "127.0.0.1"
_EXPECTED: Final = "write HOST:PORT, such as 127.0.0.1:8080"


def parse_listen(value: object) -> tuple[str, int]:
    """Parse an address and a port (0 for any free one); a port alone is one of 127.0.0.1.

    Raises:
        ValueError: the text is not an address; the message says what to write.
    """
    if isinstance(value, tuple):  # already parsed
        return value
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) < 65536):
        message = f"{_quoted(value)} is not an address to listen on: {_EXPECTED}"
        raise ValueError(message)
    return _address(host), int(port)


def _address(host: str) -> str:
    if host in ("", "localhost"):
        return LOOPBACK
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return str(ip_address(bare))
    except ValueError:
        message = f'"{host}" is not an address of this machine: {_EXPECTED}, or 0.0.0.0:8080 for all of its addresses'
        raise ValueError(message) from None


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value) if isinstance(value, int) else "this"


def _whole_number(value: object) -> object:
    """Accept a number, or text that a variable has set; refuse booleans, which pydantic would accept as numbers."""
    if isinstance(value, bool):
        message = f"{str(value).lower()} is not a whole number"
        raise ValueError(message)
    return value


def _version(value: object) -> object:
    if value != 1 or isinstance(value, bool):
        message = "this version of the format is not supported; write version: 1"
        raise ValueError(message)
    return value


def _files(value: object) -> object:
    files = [value] if isinstance(value, str) else value
    if isinstance(files, list) and all(isinstance(file, str) and file for file in files):
        return tuple(files)
    message = "this must be a file, or a list of files (conf.d/*.yaml)"
    raise ValueError(message)


BotName = Annotated[str, BeforeValidator(_name_of_bot)]
Files = Annotated[tuple[str, ...], BeforeValidator(_files)]
Threads = Annotated[Literal["all"] | tuple[ThreadId, ...], BeforeValidator(_threads)]
Users = Annotated[tuple[UserId, ...], BeforeValidator(_users)]
History = Annotated[Literal["none", "all"] | timedelta, BeforeValidator(_history)]


class PollConfig(Settings):
    """How often a thread is polled.

    Args:
        interval: between polls while people talk in it; also between requests of the list of threads, which shows where
            something has changed.
        idle: between polls while nobody talks in it.
        rate: the maximum number of regular polls per second, over all silent threads, and over all active ones. With
            more threads, each is polled less often, and changes that the list of threads does not show are noticed
            later.
    """

    interval: Duration = timedelta(milliseconds=300)
    idle: Duration = timedelta(seconds=30)
    rate: Annotated[int, Field(ge=1, le=1000), BeforeValidator(_whole_number)] = 100

    @field_validator("interval")
    @classmethod
    def _within_quota(cls, value: timedelta) -> timedelta:
        if value < _MIN_POLL_INTERVAL:
            message = f"{format_duration(value)} is faster than the service's quota allows (at least 300ms)"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _idle_is_slower(self) -> Self:
        if self.idle < self.interval:
            idle, interval = format_duration(self.idle), format_duration(self.interval)
            message = f"idle ({idle}) must not be shorter than interval ({interval})"
            raise ValueError(message)
        return self


class PluginConfig(Settings):
    """One plugin of a bot.

    Args:
        module: its import path, or the name of an installed plugin (entry point group `chatbot.plugins`).
        settings: the settings that its factory takes.
    """

    module: Annotated[str, StringConstraints(pattern=r"^\w[\w.:-]*$"), AfterValidator(_composed)]
    settings: Mapping[str, Any] = Field(default_factory=dict)


class RateConfig(Settings):
    """How many replies each person gets in a thread.

    Args:
        messages: the maximum number of messages answered within `per`.
        per: the time in which they are counted.
    """

    messages: Annotated[int, BeforeValidator(_whole_number), Field(ge=1)]
    per: Duration = timedelta(minutes=1)

    @field_validator("per")
    @classmethod
    def _require_time(cls, value: timedelta) -> timedelta:
        if not value:
            message = "0s counts nothing (try 1m); without a limit leave rate_limit out"
            raise ValueError(message)
        return value


class BotConfig(Settings):
    """One bot.

    Args:
        display_name: the name that people see; by default its name in bots.yaml.
        threads: `all` that it is a member of, or only these.
        history: how far back a newly joined thread is read: `none`, `all`, or a duration.
        rejoin: how long replies wait after the bot was removed from their thread; then they fail.
        plugins: its plugins, in the order in which their handlers are tried.
        ack: when the bot sends a read receipt: when the message was `received`, when it was `handled`, or only if a
            handler sends one (`manual`).
        admins: user ids that the filter `admin` matches, and that no limit applies to.
        allow: user ids; if given, messages of all others except admins are ignored.
        rate_limit: how many replies each person gets in a thread, counted over restarts; by default there is no limit.
        apology: the text sent to a person when all attempts to handle their message have failed; `off` sends nothing.
        max_handlers: the maximum number of handlers that run at the same time; events of further threads wait.
        timeout: how long one attempt of a handler may run, unless the handler sets a timeout; null means no limit.
        user: the id of its user in the service; required if `service` cannot create users; otherwise one is created at
            the first start and stored.
        token: an access token of that user, as `!secret`, if `service` names nothing that issues tokens.
    """

    display_name: Text | None = None
    threads: Threads = "all"
    history: History = "none"
    rejoin: Duration = timedelta(minutes=10)
    plugins: Annotated[tuple[Annotated[PluginConfig, BeforeValidator(_plugin)], ...], Field(min_length=1, strict=False)]
    ack: Literal["received", "handled", "manual"] = "handled"
    poll: PollConfig = PollConfig()
    admins: Users = ()
    allow: Users | None = None
    rate_limit: RateConfig | None = None
    apology: Annotated[Text | None, BeforeValidator(_apology)] = APOLOGY
    max_handlers: Annotated[int, Field(ge=1, le=1000), BeforeValidator(_whole_number)] = 32
    timeout: Duration | None = timedelta(minutes=10)
    user: Annotated[UserId | None, BeforeValidator(_user)] = None
    token: Secret | None = None


class LogConfig(Settings):
    """What is logged, and how: `auto` is console on a terminal and JSON lines otherwise.

    Args:
        bots: the least level of single bots, by their names in bots.yaml; `level` applies to all others.
        texts: whether messages and replies are logged, and exceptions with their texts.
        harmless: classes of exceptions that never quote people, as `package.module.Class`: their texts are logged.
    """

    format: Literal["auto", "console", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    bots: dict[str, Literal["debug", "info", "warning", "error"]] = Field(default_factory=dict)
    texts: bool = False
    harmless: tuple[Annotated[str, AfterValidator(_name_of_class)], ...] = ()


class EmulatorConfig(Settings):
    """The emulator in the daemon's process, for `service: emulator`.

    Args:
        data: the file that stores its users, threads and messages; relative to bots.yaml.
        port: the port of its https endpoint; by default the port of the last run, or any if that is taken.
        quirks: a file of quirks, as `chatbot doctor --probe` writes it; relative to bots.yaml. By default the emulator
            behaves as the recordings of the service do.
        playground: serve a page on loopback on which you talk to the bots and see how they handle each message;
            `chatbot run` prints its link.
    """

    data: Text = ".chatbot/emulator.db"
    playground: bool = True
    quirks: Text | None = None
    port: Annotated[int, Field(ge=1, le=65535), BeforeValidator(_whole_number)] | None = None


class ReloadConfig(Settings):
    """How a reload by SIGHUP or `run --reload` treats code that cannot continue what the store holds.

    Args:
        incompatible: `refuse` keeps the old code; `warn` uses the new code and logs what is lost.
    """

    incompatible: Literal["refuse", "warn"] = "refuse"


class ServerConfig(Settings):
    """The status server: /healthz, /readyz, /status and /metrics; off by default.

    Args:
        listen: `HOST:PORT`, or a port of 127.0.0.1. Anybody who can connect to it can read the status of the bots
            without a password, so an address other than loopback must be written out.
    """

    listen: Annotated[tuple[str, int], BeforeValidator(parse_listen)]


class EventGridConfig(Settings):
    """The webhook to which Event Grid posts chat events, so that bots poll at once; see docs/how-to/event-grid.md.

    Args:
        listen: `HOST:PORT`, or a port of 127.0.0.1; the path is /eventgrid. Event Grid requires https, so put a
            reverse proxy in front.
        key: the key that deliveries must present; at least 16 characters.
    """

    listen: Annotated[tuple[str, int], BeforeValidator(parse_listen)]
    key: SecretStr

    @field_validator("key")
    @classmethod
    def _require_long_key(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < _MIN_KEY_LENGTH:
            message = f"this key is too easy to guess (at least {_MIN_KEY_LENGTH} characters): openssl rand -hex 32"
            raise ValueError(message)
        return value


class Config(Settings):
    """All of bots.yaml.

    Args:
        version: of the format; 1.
        include: more files, or patterns (`conf.d/*.yaml`), relative to the file that names them; settings of this file
            take precedence.
        service: `emulator`, the connection string of an Azure Communication Services resource, or, to use no access
            key, a mapping with the resource's endpoint and where the bots' tokens come from.
        ca_file: a PEM file of certificate authorities to trust in addition to the system's; relative to bots.yaml.
        store: the URL of the store: sqlite:///FILE, postgresql://USER@HOST/DATABASE, or "memory:"; relative paths start
            at bots.yaml.
        bots: the bots by name; logs and the store use these names.
        log: what is logged, and how.
        drain_timeout: how long a stop waits for running handlers and pending replies.
        emulator: the emulator in the daemon's process, for `service: emulator`.
        server: the status server; null is off.
        event_grid: the webhook for Event Grid; null is off.
        reload: what a reload does with code that cannot continue what the store holds.
        allow_new_users: start a bot as a new user although the store was lost or the bot renamed; refused otherwise.
        retention: how long the store keeps records of finished work; pending work and dead letters are not deleted.
            Also how long timers and dialogs wait for a bot that was removed from their thread.
    """

    version: Annotated[Literal[1], BeforeValidator(_version)]
    include: Files = ()
    service: Service
    ca_file: Text | None = None
    store: SecretStr = SecretStr("sqlite:///chatbot.db")
    bots: Annotated[dict[BotName, BotConfig], Field(min_length=1)]
    log: LogConfig = LogConfig()
    drain_timeout: Duration = timedelta(seconds=10)
    server: ServerConfig | None = None
    event_grid: EventGridConfig | None = None
    retention: Duration = timedelta(days=30)
    emulator: EmulatorConfig = EmulatorConfig()
    reload: ReloadConfig = ReloadConfig()
    allow_new_users: bool = False

    _path: Path = PrivateAttr()
    _directory: Path = PrivateAttr()
    _document: Document = PrivateAttr()

    @field_validator("service")
    @classmethod
    def _known_service(cls, value: SecretStr | ServiceConfig) -> SecretStr | ServiceConfig:
        if isinstance(value, SecretStr) and (text := value.get_secret_value()) != EMULATOR:
            checked(lambda: ConnectionString.parse(text), "; or write emulator")
        return value

    @field_validator("retention")
    @classmethod
    def _require_min_retention(cls, value: timedelta) -> timedelta:
        if value < _MIN_RETENTION:
            message = f"{format_duration(value)} is too short: bots could not edit recent messages (at least 1h)"
            raise ValueError(message)
        return value

    @field_validator("store", mode="before")
    @classmethod
    def _known_store(cls, value: object) -> object:
        if isinstance(value, str):
            checked(lambda: open_store(value, base_dir=Path()))
        elif isinstance(value, SecretStr):
            try:
                open_store(value.get_secret_value(), base_dir=Path())
            except ConfigError:
                message = f"what this secret holds is not a store URL: expected {FORMS}"
                raise ValueError(message) from None
        return value

    def set_source(self, path: Path, document: Document) -> Self:
        """Record the file, and the locations in it, that these settings were read from. Called by `load`."""
        self._path = path
        self._directory = path.absolute().parent
        self._document = document
        return self

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self._path

    @property
    def directory(self) -> Path:
        """The absolute directory that paths in the file are relative to, and that plugins are imported from first."""
        return self._directory

    @property
    def document(self) -> Document:
        """The content of the file, with the location of each value."""
        return self._document

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the file and of all files that it includes."""
        return self._document.source.name, *self._document.others

    @property
    def uses_emulator(self) -> bool:
        """Whether the service is the emulator in the daemon's process."""
        return isinstance(self.service, SecretStr) and self.service.get_secret_value() == EMULATOR

    @property
    def creates_users(self) -> bool:
        """Whether this configuration can create users: with the key of the resource, or by Entra."""
        return not isinstance(self.service, ServiceConfig) or self.service.entra is not None

    def problem(self, path: DataPath, text: str) -> str:
        """Return a problem of the value at this path, with its place in the file, for a `ConfigError`."""
        return str(self._document.problem(path, text))
