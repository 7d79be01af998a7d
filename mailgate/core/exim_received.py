"""What the Received field of our own Exim says of the client: the last resort, where Exim says it nowhere else.

Duty: read what Exim's own received_header_text writes (4.96; src/host.c, host_build_sender_fullhost, has the forms) and
nothing else: no values from what is no field of Exim's. A stranger chose the HELO and the ident in it, and the name of
the host in the DNS; but there is no line end in them, and nothing but a name without brackets stands in front of the
address. So the address is read from the left, the HELO to the end of its line, the rest from the beginning of a line.
"""

from __future__ import annotations

import re

from mailgate.core import headers
from mailgate.core.envelope import printable

_MOST = 4096  # octets of the field that are looked at; with a long HELO and a long reverse-path Exim writes 1000
_ADDRESS = r"\[(?P<ip>[0-9A-Fa-f.:]{2,45})\]"
_SAID = r"(?P<said>[^\r\n]*)\)(?=\r\n\tby )"
# "[192.0.2.7] (helo=a ident=b)" without a host name, "mx.example.net ([192.0.2.7] helo=a)" with one. Where the HELO
# says no more than the name or the address, Exim leaves it out.
_NAMELESS = re.compile(rf" ?from {_ADDRESS}(?![^ \r])(?: \({_SAID})?")
_NAMED = re.compile(
    rf" ?from (?P<host>[A-Za-z0-9._-]{{1,255}})(?: |\r\n\t)\({_ADDRESS}(?::\d{{1,5}})?(?![^ )])(?:{_SAID})?"
)
# A program on Exim's own host: "from bob by lists.test with local", "from bob (helo=a)" behind -bs, or no word of it.
_USER = r'(?P<user>[^\s"\[(]{1,255}|"(?:[^"\\\r\n]|\\[^\r\n]){0,255}")'
_LOCAL = re.compile(rf" ?(?:from {_USER}(?: | \({_SAID}\r\n\t))?by [^\s]{{1,255}} with local\b")
_PARTS = re.compile(r"(?: ?port=\d{1,5})?(?: ?helo=(?P<helo>.*?))?(?: ?ident=.*)?")
_TLS = re.compile(r"\n\tby \S{1,255} with \S{1,80} +\(((?:TLS|SSL)[0-9.v]+)\)(?: tls ([\w-]{1,80}))?")


def values(head: bytes) -> dict[str, str]:
    """What the topmost Received field says, by the keys of X-Mailgate-Client; `ip` is "" for a program on Exim's host.

    Nothing if it is not our Exim's: its id is then not where Exim writes it.
    """
    if not headers.own_exim_id(head):
        return {}
    text = headers.first_as_is(head, b"received")[:_MOST].decode("utf-8", "replace")
    found = _NAMELESS.match(text) or _NAMED.match(text) or _LOCAL.match(text)
    if found is None:
        return {}
    parts = found.groupdict(default="")
    said = _PARTS.fullmatch(parts.get("said", ""))
    tls = _TLS.search(text)
    read = {
        "ip": parts.get("ip", ""),
        "host": parts.get("host", ""),
        "helo": (said and said["helo"]) or parts.get("host", ""),
        "user": _unquoted(parts.get("user", "")),
        "tls": ":".join(filter(None, tls.groups())) if tls else "",
    }
    return {key: printable(value) for key, value in read.items()}


def _unquoted(local_part: str) -> str:
    return re.sub(r"\\(.)", r"\1", local_part[1:-1]) if local_part.startswith('"') else local_part
