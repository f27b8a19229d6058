"""Words leave the machine only on purpose."""

import socket

import pytest

from ecmf_lib.enrich_address import EnrichError, check_address, is_loopback
from ecmf_lib.enrich_llm import LLMEnricher

HERE = ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LOCALHOST"]
ELSEWHERE = [
    "api.openai.com",
    "10.0.0.1",
    "192.168.1.5",
    "0.0.0.0",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evil.localhost",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "::",
    "::ffff:8.8.8.8",
    "fe80::1",
    "",
]


@pytest.mark.parametrize("host", HERE)
def test_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ELSEWHERE)
def test_not_this_machine(host):
    assert not is_loopback(host)


def test_localhost_that_leads_elsewhere(monkeypatch):
    leads = [(2, 1, 6, "", ("127.0.0.1", 0)), (2, 1, 6, "", ("93.184.216.34", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: leads)
    assert not is_loopback("localhost")


def test_a_name_is_not_asked_for_where_it_leads(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(2, 1, 6, "", ("127.0.0.1", 0))])
    assert not is_loopback("rebound.example")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "http://[::1]:8000/v1", "https://localhost/v1/"])
def test_local_addresses_are_taken(url):
    assert check_address(url, allow_remote=False) is True
    assert LLMEnricher(url, "m").base_url == url


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "http://127.0.0.1.evil.example/v1",
        "http://localhost.evil.example:8000/v1",
        "http://[2001:db8::1]/v1",
        "http://0.0.0.0:8000/v1",
        "http://evil.example:80/127.0.0.1/",
        "http://127.0.0.1%2eevil.example/",
    ],
)
def test_remote_addresses_need_allowing_and_it_is_said_why(url):
    with pytest.raises(EnrichError, match=r"transcripts would be sent there.*allow_remote=True"):
        LLMEnricher(url, "m")
    assert check_address(url, allow_remote=True) is False
    assert LLMEnricher(url, "m", allow_remote=True).allow_remote
    assert LLMEnricher(url, "m", replay=True).replay  # nothing is sent


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1@evil.example/v1", "http://localhost:s3cret@evil.example/", "http://u@127.0.0.1/"]
)
@pytest.mark.parametrize("allow_remote", [False, True])
def test_user_and_password_are_refused_and_not_repeated(url, allow_remote):
    with pytest.raises(EnrichError, match="before '@'") as caught:
        LLMEnricher(url, "m", allow_remote=allow_remote)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "http://",
        "http://127.0.0.1/v1?key=x",
        "http://[::1",
    ],
)
@pytest.mark.parametrize("allow_remote", [False, True])
def test_what_is_no_base_url(url, allow_remote):
    with pytest.raises(EnrichError, match=r"http://127\.0\.0\.1:8000/v1"):
        LLMEnricher(url, "m", allow_remote=allow_remote)


def test_slash_tricks_do_not_move_the_host():
    for url in (
        "http://evil.example\\@127.0.0.1/",
        "http://evil.example#@127.0.0.1/",
        "http://evil.example/@127.0.0.1",
    ):
        with pytest.raises(EnrichError):
            LLMEnricher(url, "m")
