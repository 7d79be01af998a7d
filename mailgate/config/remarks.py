"""What a configuration says that is allowed, and hardly meant: for `mailgate check-config` to remark upon."""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mailgate.config import parse
from mailgate.config.kinds import network
from mailgate.core.units import said_seconds


def remarks(file: Path) -> Iterator[str]:
    """A line for each, with its key. The file is one that `load` takes."""
    tree = tomllib.loads(file.read_text(encoding="utf-8"))
    yield from _wide(tree, "relay", "trusted_peers")
    yield from _wide(tree, "spam", "skip_networks")
    config = parse(tree)
    spam, verdict = config.spam, config.verdict
    if spam.engine != "off" and verdict.listen and verdict.looking < spam.timeout:
        least = said_seconds(spam.timeout + verdict.writing)
        yield f"verdict.budget: shorter than {least} (spam.timeout, and a second to write the verdict down): \
a slow scorer is given less time where Exim asks"
    if spam.engine != "off" and 0 < spam.reject_score < spam.tag_score:
        yield "spam.tag_score: above spam.reject_score: nothing is tagged that is not rejected, too"
    for key in ("proxy_protocol", "xclient"):
        if getattr(config.relay, key) and not config.relay.smtp:
            yield f"relay.{key}: it has no effect: relay.smtp names no address"
    secret = config.relay.client_secret_file.file
    if secret and Path(secret).stat().st_mode & 0o004:
        yield f"relay.client_secret_file: everybody on this host can read {secret}"


def _wide(tree: dict[str, Any], section: str, key: str) -> Iterator[str]:
    for text in tree.get(section, {}).get(key, ()):
        whole, (address, _, _) = network(text), text.partition("/")
        if ipaddress.ip_address(address) != whole.network_address:
            yield f"{section}.{key}: {text} is all of {whole}: write that, or {address} if it alone is meant"
