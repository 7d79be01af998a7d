"""Mail to a list that does not exist, by the recipe: the real Exim asks the real Mailman at RCPT, and what Mailman does
not know is refused in the session. Whatever else Mailman says, or does not say, costs no mail.
"""

from dataclasses import replace

import pytest

from tests.stack.client import Client
from tests.stack.exim import Exim
from tests.stack.fake_mailman import FakeMailman
from tests.stack.fake_script import Act, Stage, hang, say
from tests.stack.mails import mails
from tests.stack.stack import Stack

NO_SUCH_LIST = "550 5.1.1 there is no such list here"
SUFFIXES = (
    *("-bounces", "-bounces+ida=example.org", "-confirm", "-confirm+0f", "-join", "-leave", "-owner", "-request"),
    *("-subscribe", "-unsubscribe"),
)


def asking(exim: Exim, mailman: tuple[str, int]) -> None:
    """Have Exim ask there."""
    host, port = mailman
    exim.set({**exim.macros, "MAILGATE_MAILMAN_HOST": host, "MAILGATE_MAILMAN_PORT": port})


def told(exim: Exim, *recipients: str, sender: str = "<ida@example.org>") -> list[str]:
    """The replies to RCPT for these recipients of one message."""
    with Client(exim.address) as client:
        assert client.command(f"MAIL FROM:{sender}").code == 250
        return [str(client.command(f"RCPT TO:<{recipient}>")) for recipient in recipients]


def test_it_is_refused_in_the_session_and_nobody_gets_a_bounce(stack: Stack, a_list: str) -> None:
    stack.start_gate()
    asking(stack.exim, stack.mailman.address)
    recipients = ("nosuch@lists.test", a_list, "nosuch-owner@lists.test")
    mail = replace(mails()["plain"].marked("no-such-list"), recipients=recipients)
    result = stack.post(mail)
    assert [str(reply) for reply in result.recipients] == [NO_SUCH_LIST, "250 Accepted", NO_SUCH_LIST]
    assert result.codes == [250]
    stack.mailman.wait_arrived(a_list, mail.message_id)
    stack.exim.wait_empty()
    assert stack.exim.bounces() == []
    assert stack.to_gate.wait_for(mail.message_id).delivered == [a_list]


def test_every_address_of_a_list_is_known(stack: Stack, a_list: str) -> None:
    asking(stack.exim, stack.mailman.address)
    local, _, domain = a_list.partition("@")
    known = [f"{local}{suffix}@{domain}" for suffix in SUFFIXES]
    known += [a_list.upper(), f'"{local}"@{domain}', f"postmaster@{domain}", f"Postmaster@{domain}"]
    assert set(told(stack.exim, *known)) == {"250 Accepted"}
    unknown = [f"{local}-nonsense@{domain}", f"x{a_list}", f'"a,b"@{domain}', f"a%b@{domain}"]
    assert set(told(stack.exim, *unknown)) == {NO_SUCH_LIST}
    assert told(stack.exim, f"nosuch@{domain}", a_list, sender="<>") == [NO_SUCH_LIST, "250 Accepted"]
    assert told(stack.exim, f"nösuch@{domain}", a_list, sender="<ída@example.org> SMTPUTF8") == [
        NO_SUCH_LIST,
        "250 Accepted",
    ]


def test_a_list_is_known_as_soon_as_there_is_one(stack: Stack) -> None:
    asking(stack.exim, stack.mailman.address)
    assert told(stack.exim, "newborn@lists.test") == [NO_SUCH_LIST]
    stack.mailman.create_list("newborn")
    assert told(stack.exim, "newborn@lists.test") == ["250 Accepted"]
    stack.mailman.delete_list("newborn@lists.test")
    assert told(stack.exim, "newborn@lists.test") == [NO_SUCH_LIST]


def test_while_mailman_is_down_mail_is_accepted_and_spooled(stack: Stack, fake: FakeMailman) -> None:
    gate = stack.start_gate(mailman=fake.address)
    asking(stack.exim, fake.address)
    fake.refuse()
    mail = mails()["plain"].at("list@lists.test").marked("asked-nobody")
    assert stack.post(mail).codes == [250]
    gate.wait_for_event("message.spooled", message_id=mail.message_id)
    stack.exim.wait_empty()
    fake.accept()
    assert fake.wait_taken()[0].message_id == mail.message_id


@pytest.mark.parametrize(
    ("stage", "act"),
    [
        (Stage.GREETING, say("554 no service here")),
        (Stage.LHLO, say("502 not implemented")),
        (Stage.MAIL, say("550 not now")),
        (Stage.RCPT, say("451 Requested action aborted: error in processing")),
        (Stage.RCPT, say("500 Error: (OperationalError) the database is gone")),
        (Stage.RCPT, Act(raw=b"\r\n\xff\r\n")),
    ],
    ids=["greeting", "lhlo", "mail", "defers", "exception", "rubbish"],
)
def test_what_is_trouble_of_mailmans_refuses_nobody(stack: Stack, fake: FakeMailman, stage: Stage, act: Act) -> None:
    asking(stack.exim, fake.address)
    fake.on(stage, act)
    assert told(stack.exim, "list@lists.test") == ["250 Accepted"]


def test_what_mailman_says_once_is_not_believed(stack: Stack, fake: FakeMailman) -> None:
    asking(stack.exim, fake.address)
    unavailable = say("550 Requested action not taken: mailbox unavailable")
    fake.on(Stage.RCPT, unavailable, only="list@lists.test", times=1)
    assert told(stack.exim, "list@lists.test") == ["250 Accepted"]
    fake.on(Stage.RCPT, unavailable, only="list@lists.test", times=2)
    assert told(stack.exim, "list@lists.test") == [NO_SUCH_LIST]


def test_a_mailman_that_hangs_is_waited_for_once_a_message(stack: Stack, fake: FakeMailman) -> None:
    asking(stack.exim, fake.address)
    fake.on(Stage.GREETING, hang())
    assert told(stack.exim, *[f"list{n}@lists.test" for n in range(10)]) == ["250 Accepted"] * 10
    assert fake.connections == 1
    assert stack.exim.log_lines("Mailman is slow to say which lists there are: list0@lists.test is taken unasked")


def test_postmasters_mail_goes_to_whom_the_site_names(stack: Stack) -> None:
    stack.start_gate()
    asking(stack.exim, stack.mailman.address)
    stack.exim.set({**stack.exim.macros, "MAILGATE_POSTMASTER": "root@mx.lists.test"})
    mail = mails()["plain"].at("Postmaster@lists.test").marked("postmaster")
    assert stack.post(mail).codes == [250]
    stack.exim.wait_for_log("=> root <Postmaster@lists.test> R=everything_else")
