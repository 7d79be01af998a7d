"""Where to listen or connect, as people write it: "127.0.0.1:8025", "[::1]:8025", "unix:/run/mailgate/lmtp.sock".
And where Mailman's REST interface is: "http://127.0.0.1:8001/3.1".
"""

from __future__ import annotations

from dataclasses import dataclass

_SOCKET_PATH = 107  # octets that fit into sockaddr_un, unix(7)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def endpoint(text: str) -> Endpoint:
    """The endpoint that is written so. Raises ValueError that says how to write one."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError(f'{text!r}: the path of a unix socket is absolute, as in "unix:/run/mailgate/lmtp.sock"')
        if len(path.encode("utf-8", "surrogateescape")) > _SOCKET_PATH:
            raise ValueError(f"{text!r}: the path of a unix socket has at most {_SOCKET_PATH} octets")
        return Endpoint(path=path)
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f'{text!r} is not an address: write "127.0.0.1:8025", "[::1]:8025" or "unix:/path/of/socket"')
    return Endpoint(host=host, port=int(port))


@dataclass(frozen=True, slots=True)
class Url:
    """A place in plain HTTP. `path` has no slash at its end."""

    at: Endpoint
    path: str

    def __str__(self) -> str:
        return f"http://{self.at}{self.path}"


def url(text: str) -> Url:
    """The URL that is written so. Raises ValueError that says how to write one."""
    scheme, _, rest = text.partition("://")
    host, _, path = rest.partition("/")
    path = path.rstrip("/")
    if scheme != "http" or "@" in host or not path.isascii() or any(sign in path for sign in " ?#\r\n"):
        raise ValueError(f'{text!r}: write "http://127.0.0.1:8001/3.1": plain HTTP, and no password in it')
    try:
        at = endpoint(host)
    except ValueError:
        raise ValueError(f'{text!r}: write the address with its port, as in "http://127.0.0.1:8001/3.1"') from None
    return Url(at, f"/{path}" if path else "")
