"""`mailgate status`: what the daemon says of itself, for a terminal."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import typer

from mailgate.cli.options import ConfigFile, Json, read_config
from mailgate.cli.output import FAILED, Column, fail, line, objects, table
from mailgate.core.endpoint import Endpoint

_PATIENCE = 5.0  # seconds


class _Connection(http.client.HTTPConnection):
    """To where http.listen says, a unix socket too."""

    def __init__(self, at: Endpoint) -> None:
        super().__init__(at.host or "localhost", at.port or None, timeout=_PATIENCE)
        self._path = at.path

    def connect(self) -> None:
        if not self._path:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)


def status(as_json: Json = False, config: ConfigFile = None) -> None:
    """Say whether the daemon would take mail now, and who is over a limit most often.

    For example:
      mailgate status
      mailgate status --json | jq .offenders

    Exit status: 0 it would take mail, 1 it would not, or does not answer, 2 usage.
    """
    at = read_config(config)[0].http.listen
    try:
        told, offenders = _page(at, "/readyz"), _page(at, "/limits")["offenders"]
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        raise fail(f"http.listen: {at} does not answer: {error or type(error).__name__}") from None
    if as_json:
        objects([{**told, "offenders": offenders}])
    else:
        for key, value in told.items():
            line(f"{key}: {_said(value)}")
        _tell(offenders)
    if not told["ready"]:
        raise typer.Exit(FAILED)


def _page(at: Endpoint, path: str) -> dict[str, Any]:
    connection = _Connection(at)
    try:
        connection.request("GET", path)
        tree: dict[str, Any] = json.loads(connection.getresponse().read())
        return tree
    finally:
        connection.close()


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {'up' if up else 'down'}" for key, up in value.items()) or "none"
    return str(value) or "no"


def _tell(offenders: list[dict[str, Any]]) -> None:
    if not offenders:
        return
    line("\nover a limit most often:")
    columns = (Column("LIMIT"), Column("WHO", folds=True), Column("PUT OFF", right=True), Column("USED", right=True))
    table(columns, ([one["limit"], one["key"], str(one["refused"]), f"{one['used']:.0%}"] for one in offenders))
