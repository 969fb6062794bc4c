import pytest

from chatbot.config.schema import parse_listen


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:8080", ("127.0.0.1", 8080)),
        ("[::1]:8080", ("::1", 8080)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        (":8080", ("127.0.0.1", 8080)),
        ("8080", ("127.0.0.1", 8080)),
        (8080, ("127.0.0.1", 8080)),
    ],
)
def test_an_address_and_a_port_are_read_and_a_port_alone_is_of_loopback(
    written: object, meant: tuple[str, int]
) -> None:
    assert parse_listen(written) == meant


@pytest.mark.parametrize("written", ["127.0.0.1", "here:there", "1.2.3.4:65536", "my-host:80", True, None, 1.5])
def test_anything_else_is_refused_with_what_to_write(written: object) -> None:
    with pytest.raises(ValueError, match=r"write HOST:PORT, such as 127\.0\.0\.1:8080"):
        parse_listen(written)
