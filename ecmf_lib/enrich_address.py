"""Whether an address is this machine. Words leave it only on purpose.

No message repeats the address: messages end in notebooks and logs, and those are passed on.
"""

from __future__ import annotations

import ipaddress
import re
import socket

import httpx2  # the HTTP library of the openai client: what is checked here is parsed as it will be when it is used

from ecmf_lib.enrich_prompt import EnrichError


def check_address(base_url: str, *, allow_remote: bool) -> bool:
    """Check a server's base URL.

    Parameters
    ----------
    base_url : str
        Such as ``http://127.0.0.1:8000/v1``.
    allow_remote : bool
        Whether transcripts may be sent to other machines.

    Returns
    -------
    bool
        Whether it is this machine: 127.0.0.0/8, ::1, or ``localhost`` if that resolves to nothing else. A name that
        only happens to lead here today is not.

    Raises
    ------
    EnrichError
        If it is no URL that can be used, or another machine without `allow_remote`.
    """
    try:
        url = httpx2.URL(base_url)
    except (httpx2.InvalidURL, TypeError) as error:
        why = type(error).__name__  # its text may repeat a part of the address
        raise EnrichError(f"base_url is no URL ({why}); expected one like http://127.0.0.1:8000/v1") from None
    if url.userinfo:  # never repeated, it may hold a password
        raise EnrichError(
            "the server's URL holds a user or a password before '@', which would end up in reports; "
            "leave it out and put the key into the environment variable"
        )
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise EnrichError(
            "base_url cannot be a server's: expected http or https, a host, and neither ? nor #, as in "
            "http://127.0.0.1:8000/v1"
        )
    here = is_loopback(url.raw_host.decode("ascii"))  # as it is connected to
    if not here and not allow_remote:
        raise EnrichError(
            "base_url is not on this machine, and the transcripts would be sent there: they are what people said, "
            "and most corpora forbid to pass them on. If you may and want to, set allow_remote=True; "
            "otherwise start a server here and give its address, such as http://127.0.0.1:8000/v1"
        )
    return here


def is_loopback(host: str) -> bool:
    """Whether a URL's host is this machine and cannot be another one."""
    if host.casefold() == "localhost":
        try:
            found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
        except OSError:
            return False
        return bool(found) and all(_local(address) for address in found)
    return _local(host)


def _local(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_loopback and (parsed.version == 4 or parsed == ipaddress.IPv6Address("::1"))


def without_address(text: str, base_url: str) -> str:
    """A text in which the server's address, whole or its host and port, is written as ``***``."""
    try:
        url = httpx2.URL(base_url)
        parts = [base_url, str(url), url.netloc.decode("ascii"), "" if is_loopback(url.host) else url.host]
    except (httpx2.InvalidURL, TypeError, UnicodeDecodeError):
        parts = [str(base_url)]
    # a host of one plain word ("gpu") may be any word of the text
    telling = {part.rstrip("/") for part in parts if re.search("[.:]", part)}
    for part in sorted(telling, key=len, reverse=True):
        text = text.replace(part, "***")
    return text
