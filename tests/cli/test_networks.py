"""`mailgate networks …`: what operators see and change, with the daemon and without it."""

import json
import subprocess
from pathlib import Path

import pytest

from mailgate.edge.networks import files
from tests.cli.site import Site
from tests.stack.waiting import wait_until

SITE = """
abuse_networks:
  blocked: {comment: why, context: [mx, ferm], networks: [192.0.2.0/24, 2001:db8::/32, bad]}
  bots:
    context: [varnish]
    networks: [192.0.2.128/25]
"""


@pytest.fixture
def lists(site: Site) -> Site:
    """A site with a list and an own file."""
    folder = site.directory
    (folder / "site.yaml").write_text(SITE)
    with site.config.open("a") as file:
        file.write(f'[networks]\nfiles = ["{folder}/site.yaml"]\nown_file = "{folder}/own.txt"\n')
        file.write('[spam]\nengine = "off"\nskip_networks = ["192.0.2.9"]\n')
    return site


BAD = "site.yaml: line 3: bad is no network (skipped)"


def test_list_says_what_would_be_read(lists: Site) -> None:
    ran = lists.run("networks", "list")
    assert ran.status == 0
    rows = [line.split() for line in ran.out.splitlines()]
    assert rows[0] == ["SET", "NETWORKS", "CONTEXTS", "ACTION", "HITS", "READ", "FILE"]
    assert rows[1][:6] == ["blocked", "2", "mx,", "ferm", "reject", "-"]
    assert rows[2][:5] == ["bots", "1", "varnish", "-", "-"]
    assert BAD in ran.err
    (blocked, _) = lists.run("networks", "list", "--json").rows
    assert {key: blocked[key] for key in ("set", "networks", "contexts", "action", "hits", "comment")} == {
        "set": "blocked",
        "networks": 2,
        "contexts": ["mx", "ferm"],
        "action": "reject",
        "hits": 0,
        "comment": "why",
    }


def test_nothing_listed_is_status_3(site: Site) -> None:
    assert site.run("networks", "list").status == 3


def test_check_says_what_would_happen_and_why(lists: Site) -> None:
    ran = lists.run("networks", "check", "192.0.2.200", "--json")
    assert ran.status == 0
    assert [(row["set"], row["network"], row["line"], row["action"], row["contexts"]) for row in ran.rows] == [
        ("blocked", "192.0.2.0/24", 3, "reject", ["mx", "ferm"]),
        ("bots", "192.0.2.128/25", 6, None, ["varnish"]),
    ]
    ran = lists.run("networks", "check", "::ffff:192.0.2.200")
    assert f"{lists.directory}/site.yaml:3" in ran.out
    assert ran.out.splitlines()[-1] == (
        "192.0.2.200: mail: reject where Exim asks first, else policy.reject_after_acceptance: hold;"
        " also listed for ferm, varnish; ferm should have stopped it (drift)"
    )


@pytest.mark.parametrize(
    ("ip", "status", "said"),
    [
        ("192.0.2.9", 0, "mail is taken: it is in spam.skip_networks, whatever lists it"),
        ("198.51.100.1", 3, "mail is taken"),
        ("2001:db8::1", 0, "mail: reject where Exim asks first"),
    ],
)
def test_check_of_others(lists: Site, ip: str, status: int, said: str) -> None:
    ran = lists.run("networks", "check", ip)
    assert (ran.status, f"{ip}: {said}" in ran.out) == (status, True)


def test_check_says_what_a_script_wants_to_know(lists: Site) -> None:
    (row,) = lists.run("networks", "check", "192.0.2.9", "--json").rows
    assert (row["action"], row["spared"], row["drift"]) == ("none", True, [])
    (row,) = lists.run("networks", "check", "192.0.2.10", "--json").rows
    assert (row["action"], row["spared"], row["drift"]) == ("reject", False, ["ferm"])


def test_check_of_a_broken_list_says_what_is_in_force(lists: Site) -> None:
    lists.run("networks", "reload")
    (lists.directory / "site.yaml").write_text("a: [")
    ran = lists.run("networks", "check", "192.0.2.10")
    assert ran.status == 0
    assert "192.0.2.10: mail: reject where Exim asks first" in ran.out
    assert "is no YAML" in ran.err
    assert "(what it listed before is in force)" in ran.err
    (row,) = lists.run("networks", "check", "192.0.2.10", "--json").rows
    assert (row["set"], row["line"], row["file"]) == ("blocked", None, f"{lists.directory}/site.yaml")


def test_more_than_there_is_room_for(lists: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verbs say what the daemon does: it takes nothing of the file that is too much, and all of the others."""
    more, said = lists.directory / "own.txt", "own.txt: is too much: more than"
    more.write_text("10.0.0.1\n")
    for bound, most in (("MAX_SETS", 2), ("MAX_ENTRIES", 3)):
        monkeypatch.setattr(files, bound, most)
        ran = lists.run("networks", "check", "192.0.2.10", "10.0.0.1")
        assert (ran.status, "192.0.2.10: mail: reject" in ran.out, "10.0.0.1: mail is taken" in ran.out) == (
            3,
            True,
            True,
        )
        assert f"{said} {most} " in ran.err
        assert "all files (nothing of it is)" in ran.err
        assert [row["set"] for row in lists.run("networks", "list", "--json").rows] == ["blocked", "bots"]
        ran = lists.run("check-config")
        assert (ran.status, f"{said} {most} " in ran.err) == (1, True)
        monkeypatch.undo()
    assert lists.run("networks", "check", "10.0.0.1").status == 0


def test_a_damaged_table_is_no_table(lists: Site) -> None:
    lists.run("networks", "reload")
    (lists.directory / "networks.table").write_bytes(b"damaged")
    assert [row["set"] for row in lists.run("networks", "list", "--json").rows] == ["blocked", "bots"]
    assert "2001:db8::/32" in lists.run("networks", "export", "--format", "plain").out


def test_a_table_that_can_not_be_read(lists: Site) -> None:
    (lists.directory / "networks.table").mkdir()
    for verb in (("list",), ("export", "--format", "plain"), ("reload",)):
        ran = lists.run("networks", *verb)
        assert (ran.status, f"{lists.directory}/networks.table: Is a directory" in ran.err) == (1, True)


def test_check_wants_addresses(lists: Site) -> None:
    assert lists.run("networks", "check", "192.0.2.0/24").status == 2
    assert lists.run("networks", "check", "%eth0").status == 2


def test_check_takes_an_address_with_its_interface(lists: Site) -> None:
    """As the doors and `explain` do."""
    lists.run("networks", "add", "fe80::1", "--reason", "x")
    ran = lists.run("networks", "check", "fe80::1%eth0")
    assert (ran.status, ran.out.splitlines()[-1].startswith("fe80::1: mail: reject")) == (0, True)
    assert lists.run("networks", "check", "fe80::2%eth0").status == 3


def test_add_and_remove(lists: Site) -> None:
    own = lists.directory / "own.txt"
    added = lists.run("networks", "add", "10.0.0.7/16", "2001:db8:7::1", "--reason", "bombing, T1", "--for", "2d")
    assert (added.status, own.stat().st_mode & 0o777) == (0, 0o644)
    head, first, second = own.read_text().splitlines()
    assert head.startswith("# Networks that `mailgate networks add` lists")
    network, expires, reason = first.split(" ", 2)
    assert (network, expires[:8], reason) == ("10.0.0.0/16", "expires=", "# bombing, T1")
    (row,) = lists.run("networks", "check", "10.0.3.4", "--json").rows
    assert (row["set"], row["comment"], row["line"]) == ("own", "bombing, T1", 2)
    again = lists.run("networks", "add", "10.0.0.0/16", "--reason", "for ever")
    assert again.err == f"was: {first}\n"
    assert own.read_text().splitlines() == [head, second, "10.0.0.0/16 # for ever"]
    gone = lists.run("networks", "remove", "10.0.0.0/16")
    assert (gone.status, gone.out) == (0, "removed: 10.0.0.0/16 # for ever\n")
    assert own.read_text().splitlines() == [head, second]
    assert lists.run("networks", "remove", "10.0.0.0/16").status == 3


def test_what_a_person_wrote_stays_and_what_has_expired_goes(lists: Site) -> None:
    own = lists.directory / "own.txt"
    own.write_text("# by hand\n\n10.1.1.1 ; mine\n10.2.2.2 expires=2020-01-01 # over\n")
    own.chmod(0o600)
    assert lists.run("networks", "add", "10.3.3.3", "--reason", "new").status == 0
    assert own.read_text() == "# by hand\n\n10.1.1.1 ; mine\n10.3.3.3/32 # new\n"
    assert own.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "arguments",
    [
        ("10.0.0.0/8", "--reason", "large"),
        ("2000::/16", "--reason", "large"),
        ("10.0.0.1", "--reason", " "),
        ("10.0.0.1", "--reason", "a\nb"),
        ("10.0.0.1",),
        ("10.0.0.1", "--reason", "x", "--for", "soon"),
        ("10.0.0.1", "--reason", "x", "--for", "0s"),
        ("10.0.0.1", "--reason", "x", "--for", "99999999d"),
        ("nonsense", "--reason", "x"),
        ("0.0.0.0/0", "--reason", "x", "--yes"),
    ],
)
def test_what_add_does_not_do(lists: Site, arguments: tuple[str, ...]) -> None:
    assert lists.run("networks", "add", *arguments).status == 2
    assert not (lists.directory / "own.txt").exists()


def test_a_range_goes_as_it_came(lists: Site) -> None:
    lists.run("networks", "add", "10.0.0.1-10.0.0.9", "10.0.0.1", "--reason", "x")
    assert (lists.directory / "own.txt").read_text().splitlines()[1:] == ["10.0.0.1-10.0.0.9 # x", "10.0.0.1/32 # x"]
    gone = lists.run("networks", "remove", "10.0.0.1-10.0.0.9", "10.0.0.2")
    assert (gone.status, gone.out) == (3, "removed: 10.0.0.1-10.0.0.9 # x\n")
    assert gone.err == f"mailgate: {lists.directory}/own.txt does not list 10.0.0.2/32\n"


def test_add_says_what_it_will_not_come_to(lists: Site) -> None:
    said = "mailgate: mail from 192.0.2.9/32 is taken all the same: it is in spam.skip_networks\n"
    assert lists.run("networks", "add", "192.0.2.0/24", "--reason", "x").err == said
    assert lists.run("networks", "add", "192.0.3.0/24", "::/64", "--reason", "x").err == ""


def test_two_at_once_lose_nothing(lists: Site) -> None:
    running = [
        lists.start("networks", "add", f"10.0.0.{n}", "--reason", "x", stdout=subprocess.DEVNULL) for n in range(4)
    ]
    assert [one.wait(60) for one in running] == [0, 0, 0, 0]
    assert len((lists.directory / "own.txt").read_text().splitlines()) == 5


def test_reload_without_the_daemon(lists: Site) -> None:
    ran = lists.run("networks", "reload")
    assert (ran.status, ran.out) == (0, "3 networks in 2 sets: the daemon does not answer; it begins with this\n")
    (lists.directory / "site.yaml").write_text("a: [")
    ran = lists.run("networks", "reload")
    assert ran.status == 1
    assert "is no YAML" in ran.err
    assert ran.out.startswith("3 networks in 2 sets")


def test_with_the_daemon(lists: Site) -> None:
    daemon = lists.start("serve", stderr=subprocess.DEVNULL)
    try:
        wait_until(
            lambda: "HITS" in (said := lists.run("networks", "list")).out and ready(said.out), "it runs", deadline=60
        )
        (lists.directory / "site.yaml").write_text("abuse_networks: {other: {context: [mx], networks: [10.0.0.1]}}")
        ran = lists.run("networks", "reload")
        assert (ran.status, ran.out) == (0, "1 network in 1 set: in force\n")
        assert [row["set"] for row in lists.run("networks", "list", "--json").rows] == ["other"]
    finally:
        daemon.terminate()
        assert daemon.wait(60) == 0


def ready(listing: str) -> bool:
    """Does it come from the daemon? Only that knows of hits."""
    return listing.splitlines()[1].split()[5] == "0"


def test_export_writes_what_mail_rejects(lists: Site) -> None:
    ran = lists.run("networks", "export", "--format", "plain")
    assert ran.out.splitlines()[1:3] == ["192.0.2.0/29", "192.0.2.8/32"]
    assert "192.0.2.9/32" not in ran.out  # of skip_networks
    ran = lists.run("networks", "export", "--format", "exim", "--context", "varnish")
    assert ran.out.splitlines()[1:] == ["192.0.2.128/25"]


@pytest.mark.parametrize("broken", ["a: [", None])
def test_export_leaves_a_good_file_where_nothing_is_known(lists: Site, tmp_path: Path, broken: str | None) -> None:
    """A new host: a list is broken or missing, and there is no table to say what it listed before."""
    site, out = lists.directory / "site.yaml", tmp_path / "blocked"
    out.write_text("good")
    site.unlink()
    if broken:
        site.write_text(broken)
    for more in ((), ("--output", str(out)), ("--output", str(out), "--watch")):
        ran = lists.run("networks", "export", "--format", "plain", *more)
        assert (ran.status, ran.out, out.read_text()) == (1, "", "good")
        assert f"what these listed before is not known: {site}" in ran.err
        assert "as it was before" not in ran.err
    # Nor is it known to a table that was made without it; what a table knows counts.
    lists.run("networks", "reload")
    assert lists.run("networks", "export", "--format", "plain").status == 1
    site.write_text(SITE)
    lists.run("networks", "reload")
    site.write_text("a: [")
    ran = lists.run("networks", "export", "--format", "plain", "--output", str(out))
    assert (ran.status, "(it counts as it was before)" in ran.err) == (0, True)
    assert "2001:db8::/32" in out.read_text()


def test_export_counts_a_directory_that_is_gone_as_it_was(lists: Site, tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "more.txt").write_text("10.0.0.1\n")
    text = lists.config.read_text()
    lists.config.write_text(text.replace('site.yaml"]', f'site.yaml", "{folder}"]'))
    lists.run("networks", "reload")
    folder.rename(tmp_path / "elsewhere")
    for _ in range(2):
        ran = lists.run("networks", "export", "--format", "plain")
        assert (ran.status, "10.0.0.1/32" in ran.out) == (0, True)
        assert "is in force)" in lists.run("networks", "reload").err  # the next table is made from that


def test_export_for_a_context_of_nobody(lists: Site, tmp_path: Path) -> None:
    out = tmp_path / "blocked"
    out.write_text("good")
    ran = lists.run("networks", "export", "--format", "plain", "--context", "frem", "--output", str(out))
    assert (ran.status, ran.out, out.read_text()) == (3, "", "good")
    assert ran.err.splitlines()[-1] == "mailgate: nothing is written: no set is for --context frem"
    (lists.directory / "site.yaml").write_text("cidrs: [192.0.2.1]")  # a format without contexts: for everybody
    assert "192.0.2.1/32" in lists.run("networks", "export", "--format", "plain", "--context", "frem").out


def test_check_config_tells_of_a_context_of_nobody(lists: Site) -> None:
    said = "mailgate: networks.contexts: frem: no set is for this context\n"
    assert said not in lists.run("check-config").err
    with lists.config.open() as file:
        text = file.read()
    lists.config.write_text(text.replace("[networks]", '[networks]\ncontexts = ["MX", "frem"]'))
    ran = lists.run("check-config")
    assert (ran.status, said in ran.err, "MX: no set" in ran.err) == (0, True, False)
    (lists.directory / "site.yaml").write_text("cidrs: [192.0.2.1]")
    assert said not in lists.run("check-config").err


def test_contexts_have_no_case(lists: Site) -> None:
    (lists.directory / "site.yaml").write_text("abuse_networks: {a: {context: [MX, Ferm], networks: [192.0.2.1]}}")
    (row,) = lists.run("networks", "check", "192.0.2.1", "--json").rows
    assert (row["action"], row["drift"], row["contexts"]) == ("reject", ["ferm"], ["MX", "Ferm"])
    assert (
        lists.run("networks", "check", "192.0.2.1")
        .out.splitlines()[-1]
        .endswith("also listed for Ferm; ferm should have stopped it (drift)")
    )
    for context in ((), ("--context", "FERM")):
        assert "192.0.2.1/32" in lists.run("networks", "export", "--format", "plain", *context).out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--format", "other"),
        ("--format", "exim", "--watch"),
        ("--format", "ferm", "--name", "a b"),
        (),
        ("--format", "nftables", "--name", "ip"),
        ("--format", "varnish", "--name", "req"),
    ],
)
def test_what_export_does_not_do(lists: Site, arguments: tuple[str, ...]) -> None:
    assert lists.run("networks", "export", *arguments).status == 2


def test_export_keeps_a_file_current(lists: Site, tmp_path: Path) -> None:
    out = tmp_path / "blocked"
    watching = lists.start(
        "networks", "export", "--format", "plain", "--output", str(out), "--watch", stdout=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: out.exists() and "2001:db8::/32" in out.read_text(), "it is written")
        assert out.stat().st_mode & 0o777 == 0o644
        before = out.stat().st_ino
        lists.run("networks", "add", "10.0.0.1", "--reason", "x", "--for", "8s")
        wait_until(lambda: "10.0.0.1/32" in out.read_text(), "it is written anew")
        assert out.stat().st_ino != before
        wait_until(lambda: "10.0.0.1/32" not in out.read_text(), "it has expired")
    finally:
        watching.terminate()
        watching.wait(60)


def test_json_is_an_object_a_line(lists: Site) -> None:
    for line in lists.run("networks", "list", "--json").out.splitlines():
        assert isinstance(json.loads(line), dict)
