"""The act about senders: a signed post, a forged one, what Mailman gets to know of each, and `mailgate explain`."""

from dataclasses import replace
from email.utils import formatdate

from rich.markup import escape
from rich.table import Table

from fixtures.sign import signed as signed_at
from tests.demo.scene import Demo
from tests.stack.dns import DnsServer
from tests.stack.gate import Gate
from tests.stack.mails import Mail, dns, mails
from tests.stack.passed_on import post_from, take_from_front
from tests.stack.stack import Stack

_HOST, _STRANGER = "192.0.2.7", "192.0.2.66"


def serve(names: DnsServer) -> None:
    """What the DNS says of the authors: who may send for them, their keys, and that all else is to be rejected."""
    for name, text in dns().items():
        names.add(name, "TXT", text.encode())
    names.add("example.org", "TXT", f'"v=spf1 ip4:{_HOST} -all"')
    names.add("_dmarc.example.org", "TXT", '"v=DMARC1; p=reject"')


def settings(names: DnsServer) -> dict[str, dict[str, object]]:
    """The gate's, that it checks senders and asks this DNS server."""
    return {"auth": dict.fromkeys(("spf", "dkim", "dmarc", "arc"), True) | {"nameservers": [str(names.at)]}}


def show_senders(demo: Demo, stack: Stack, gate: Gate, address: str) -> list[Mail]:
    """A post with its author's signature and one that claims to be his; both are in Mailman."""
    fresh = signed_at(formatdate())  # the scorer takes mail of last week for spam
    signed = replace(mails()["dkim"], octets=fresh).at(stack.new_list())  # that of the first act has its Message-ID
    forged = replace(signed, recipients=mails()["dkim"].recipients).at(address).marked("not-the-committee")
    take_from_front(stack)
    codes = [post_from(stack, mail, host).codes for mail, host in ((signed, _HOST), (forged, _STRANGER))]
    took = codes == [[250], [250]]
    demo.check(took, f"Exim took both, one from {_HOST}, one from {_STRANGER}")
    if not took:
        return []
    said = {mail: _results(stack, mail) for mail in (signed, forged)}
    table = Table("post", "Authentication-Results of Mailman's own, which took over the gate's", box=None)
    for mail, found in said.items():
        table.add_row(escape(mail.message_id), escape(found))
    demo.print(table)
    vouched = "spf=pass" in said[signed] and "dmarc=pass" in said[signed]
    demo.check(vouched, "the author's host, and a signature that has survived: he vouches for the first post")
    demo.check("dmarc=fail" in said[forged], "nobody vouches for the other, and every list can match on that")
    file = gate.directory / "post.eml"
    file.write_bytes(signed.octets)
    explained = gate.cli("explain", str(file), "--client", _HOST, "--from", signed.sender)
    demo.show(explained, f"mailgate explain post.eml --client {_HOST} --from {signed.sender}")
    demo.check("after acceptance: accept" in explained.stdout, "mailgate explain says why, and sends nothing")
    return [signed, forged]


def _results(stack: Stack, mail: Mail) -> str:
    arrival = stack.mailman.wait_arrived(mail.recipients[0], mail.message_id)
    head = arrival.octets.partition(b"\n\n")[0].decode("utf-8", "replace").replace("\n\t", " ").replace("\n ", " ")
    lines = [line for line in head.splitlines() if line.startswith("Authentication-Results:")]
    return " ".join(lines[0].partition(":")[2].split()) if len(lines) == 1 else f"{len(lines)} fields"
