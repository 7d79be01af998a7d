"""Mailman's REST interface, as far as health goes: does it answer, and which runners should there be.

Promises: an answer or an OSError or ValueError with words within the caller's deadline; no more is read than _MOST.
HTTP/1.0 by hand: two dozen lines, where a client library would be one more thing to be loaded.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from mailgate.core.endpoint import Url

_MOST = 256 * 1024  # octets of an answer
_TRUE = {"true", "yes", "1", "on", "enable", "enabled"}  # as Mailman reads a boolean


async def version(url: Url, secret: bytes) -> str:
    """The version that Mailman says it has."""
    return str((await _get(url, "/system/versions", secret)).get("mailman_version", ""))


async def declared(url: Url, secret: bytes) -> frozenset[str]:
    """The runners that Mailman's master starts, by its configuration."""
    sections = (await _get(url, "/system/configuration", secret)).get("sections", [])
    found = set()
    for section in sections:
        kind, _, name = str(section).partition(".")
        if kind == "runner" and name and name != "master":
            settings = await _get(url, f"/system/configuration/{section}", secret)
            if str(settings.get("start", "")).lower() in _TRUE:
                found.add(name)
    return frozenset(found)


async def _get(url: Url, page: str, secret: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection(url.at.host, url.at.port, limit=_MOST)
    try:
        credentials = base64.b64encode(secret).decode()
        writer.write(
            f"GET {url.path}{page} HTTP/1.0\r\nHost: {url.at}\r\nAuthorization: Basic {credentials}\r\n\r\n".encode()
        )
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = head[0].split(" ", 1)[-1]
        if not status.startswith("200"):
            raise ValueError(f"{page}: {status}")
        content = bytearray()
        while octets := await reader.read(_MOST):
            content += octets
            if len(content) > _MOST:
                raise ValueError(f"{page}: the answer is too large")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ValueError(f"{page}: this is no HTTP: {error}") from None
    finally:
        writer.close()
    tree = json.loads(content)
    if not isinstance(tree, dict):
        raise ValueError(f"{page}: this is no object")
    return tree
