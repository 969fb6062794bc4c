"""URLs of stores on PostgreSQL: what they mean, and that no error shows a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatbot.errors import ConfigError
from chatbot.stores import open_store
from chatbot.stores.postgres_url import PostgresUrl


def parse(url: str) -> PostgresUrl:
    return PostgresUrl.parse(url, Path("/etc/bots"))


def test_a_url_names_server_database_user_and_password() -> None:
    url = parse("postgresql://ann%40home:p%3Fss@db.example.com:6000/chat%20bots")

    assert url.hosts == (("db.example.com", 6000),)
    assert (url.user, url.password, url.database) == ("ann@home", "p?ss", "chat bots")
    assert url.schema == "chatbot"


@pytest.mark.parametrize(
    ("servers", "hosts"),
    [
        ("db", [("db", 5432)]),
        ("a:1,b,[::1]:2,[::1]", [("a", 1), ("b", 5432), ("::1", 2), ("::1", 5432)]),
        ("10.0.0.1:7", [("10.0.0.1", 7)]),
        ("%2Frun%2Fpostgresql", [("/run/postgresql", 5432)]),
    ],
)
def test_a_url_may_name_several_servers(servers: str, hosts: list[tuple[str, int]]) -> None:
    assert list(parse(f"postgresql://bots@{servers}/bots").hosts) == hosts


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.0.1", "[::1]", "%2Frun%2Fpostgresql"])
def test_on_this_machine_no_tls_is_needed(host: str) -> None:
    url = parse(f"postgres://{host}/bots")

    assert url.sslmode == "disable"
    assert url.tls() is None
    assert url.is_verified


@pytest.mark.parametrize("host", ["db", "10.0.0.1", "localhost.example.com", "127.0.0.1,db", "[fe80::1]"])
def test_elsewhere_the_server_proves_who_it_is(host: str) -> None:
    url = parse(f"postgresql://{host}/bots")
    context = url.tls()

    assert url.sslmode == "verify-full"
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"


def test_a_weaker_mode_is_a_choice_and_known_as_one() -> None:
    url = parse("postgresql://db/bots?sslmode=require")
    context = url.tls()

    assert context is not None
    assert context.verify_mode.name == "CERT_NONE"
    assert not url.is_verified


def test_files_are_relative_to_bots_yaml() -> None:
    url = parse("postgresql://db/bots?sslrootcert=ca.pem&passfile=/run/secrets/pg&sslcert=me.pem&sslkey=me.key")

    assert url.root_certificate == Path("/etc/bots/ca.pem")
    assert url.passfile == Path("/run/secrets/pg")
    assert (url.certificate, url.key) == (Path("/etc/bots/me.pem"), Path("/etc/bots/me.key"))


def test_a_store_is_named_without_user_and_password() -> None:
    url = parse("postgresql://ann:secret@a:1,b/bots?schema=desk")

    assert str(url) == "postgresql://a:1,b/bots?schema=desk"
    assert "secret" not in repr(url)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://ann:secret@db", "names no database"),
        ("postgresql://ann:secret@db/", "names no database"),
        ("postgresql://ann:secret@db/a/b", "names no database"),
        ("postgresql:///bots", "names no host"),
        ("postgresql:bots", "names no host"),
        ("postgresql://ann:secret@db:x/bots", "a port is not a number"),
        ("postgresql://ann:secret@db:70000/bots", "a port is not a number"),
        ("postgresql://ann:secret@db,/bots", "a host has no name"),
        ("postgresql://ann:secret@more@db/bots", "percent-encode # and @"),
        ("postgresql://ann:se#secret@db/bots", "percent-encode # and @"),
        ("postgresql://ann:12?secret=1@db/bots", "has an unknown option: known are"),
        ("postgresql://ann:secret@db/bots?sslmode=prefer", "its sslmode is none of disable, require"),
        ("postgresql://ann:secret@db/bots?sslmod=require", "has an unknown option 'sslmod'"),
        ("postgresql://ann:secret@db/bots?schema=Bots", "its schema is no plain name"),
        ('postgresql://ann:secret@db/bots?schema=a";', "its schema is no plain name"),
        ("postgresql://ann:secret@db/bots?schema=", "its option schema has no value"),
        ("postgresql://ann:secret@db/bots?schema=a&schema=b", "has an option twice"),
        ("postgresql://ann:secret@db/bots?secret", "its options are not NAME=VALUE"),
        ("postgresql://ann:secret@db/bots?sslkey=a", "an sslkey without an sslcert"),
        ("postgresql://ann:secret@[db/bots", "cannot be read"),
    ],
)
def test_a_url_that_cannot_be_used_is_not_shown(url: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_store(url, base_dir=Path())

    assert problem in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_token_of_entra_may_be_the_password() -> None:
    url = parse("postgresql://bots@db/bots?auth=entra&credential=managed-identity&client_id=11111111-aaaa")

    assert (url.credential, url.client_id, url.password) == ("managed-identity", "11111111-aaaa", None)
    assert parse("postgresql://bots@db/bots?auth=entra").credential == "default"
    assert parse("postgresql://bots@db/bots").credential is None


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        ("bots:secret@db/bots?auth=entra", "it has a password beside auth=entra"),
        ("bots@db/bots?auth=entra&passfile=f", "it has a password beside auth=entra"),
        ("db/bots?auth=entra", "auth=entra needs the name of the database user"),
        ("bots@db/bots?auth=entra&sslmode=require", "which only a verified server may see"),
        ("bots@db/bots?auth=entra&sslmode=disable", "which only a verified server may see"),
        ("bots@db/bots?auth=entra&credential=magic", "its credential is none of default, "),
        ("bots@db/bots?auth=kerberos", "its auth is not entra"),
        ("bots@db/bots?client_id=1", "its credential and client_id are for auth=entra"),
        ("bots@db/bots?allow_async_standby=yes", "its allow_async_standby is neither 0 nor 1"),
    ],
)
def test_what_contradicts_itself_about_tokens_and_standbys_is_refused(rest: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        parse(f"postgresql://{rest}")
    assert "secret" not in str(refused.value)
