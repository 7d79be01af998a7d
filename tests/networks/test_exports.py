"""Exports, read by the programs that they are for: each must take the file, find what is in it, and nothing else."""

import ipaddress
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core import network_exports
from mailgate.core.network_exports import FORMATS, spans, text
from mailgate.core.network_table import Listed, Table
from mailgate.core.networks import Network, NetworkSet, span
from tests.stack.exim import PROGRAM

LISTED = ["192.0.2.0/25", "192.0.2.128/26", "10.0.0.1-10.0.0.9", "198.51.100.7", "2001:db8::/32", "2001:db9::7"]
INSIDE = ["192.0.2.1", "192.0.2.191", "10.0.0.9", "198.51.100.7", "2001:db8:ffff::1", "2001:db9::7"]
OUTSIDE = ["192.0.2.192", "10.0.0.10", "198.51.100.8", "2001:db9::8", "::1"]
SET = NetworkSet("blocked")
NOW = 1000.0
FERM = Path(__file__).parents[2] / ".parts" / "ferm" / "usr" / "sbin" / "ferm"
MODULES = "/usr/lib/apache2/modules"


def table(listed: Sequence[str], of: NetworkSet = SET, expires: int = 0) -> Table:
    gathered = Listed()
    for one in listed:
        gathered.add(span(one), of, expires)
    return Table(gathered.built((of,), (), NOW))


def exported(form: str, listed: Sequence[str] = LISTED) -> str:
    return text(form, spans(table(listed), lambda _: True, (), NOW), "blocked_nets")


def run(*argv: str | Path, text: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=False, cwd=folder)


def test_plain_text_is_a_list_again(tmp_path: Path) -> None:
    lines = exported("plain").splitlines()[1:]
    assert lines[:2] == ["10.0.0.1/32", "10.0.0.2/31"]
    networks = [ipaddress.ip_network(line) for line in lines]
    assert all(any(ipaddress.ip_address(ip) in one for one in networks) for ip in INSIDE)
    assert not any(ipaddress.ip_address(ip) in one for one in networks for ip in OUTSIDE)


def test_exim_looks_it_up(tmp_path: Path) -> None:
    """As `hosts = net-iplsearch;FILE` does: by the address, then by each network that it is in."""
    file = tmp_path / "blocked"
    file.write_text(exported("exim"))
    asked = "\n".join(f"${{if match_ip {{{ip}}} {{net-iplsearch;{file}}} {{yes}} {{no}}}}" for ip in INSIDE + OUTSIDE)
    said = run(PROGRAM, "-be", text=asked).stdout.replace("> ", "").split()
    assert said == ["yes"] * len(INSIDE) + ["no"] * len(OUTSIDE)


def test_nftables_takes_it_and_replaces_what_was_there(tmp_path: Path) -> None:
    before, after = tmp_path / "before.nft", tmp_path / "after.nft"
    before.write_text(exported("nftables", ["203.0.113.0/24", "2001:db8:5::/48"]))
    after.write_text(exported("nftables"))
    checks = [f"nft get element inet mailgate blocked_nets{6 if ':' in ip else 4} '{{ {ip} }}'" for ip in INSIDE]
    fails = [f"! {check.replace(INSIDE[0], ip)}" for check in checks[:1] for ip in ("192.0.2.192", "203.0.113.9")]
    script = ["set -e", f"nft --check -f {after}", f"nft -f {before}", f"nft -f {after}", *checks, *fails]
    # In a network of its own: the machine's firewall is not asked, let alone changed.
    done = run("unshare", "--map-root-user", "--net", "sh", "-c", "\n".join(script))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["ip", "icmpv", "tcp"])
def test_a_name_that_nftables_takes_for_a_word_of_its_own_is_known(tmp_path: Path, name: str) -> None:
    file = tmp_path / "named.nft"
    file.write_text(text("nftables", [span("192.0.2.0/24")], name))
    done = run("unshare", "--map-root-user", "--net", "nft", "-f", file)
    assert (done.returncode != 0) == network_exports.is_taken("nftables", name), done.stderr


def test_nftables_takes_an_empty_list(tmp_path: Path) -> None:
    file = tmp_path / "empty.nft"
    file.write_text(exported("nftables", []))
    done = run("unshare", "--map-root-user", "--net", "nft", "-f", file)
    assert (done.returncode, done.stderr) == (0, "")


def test_ferm_makes_rules_of_both_families_of_it(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text(exported("ferm"))
    rules = "domain (ip ip6) table filter chain INPUT saddr @ipfilter($BLOCKED_NETS) DROP;"
    (tmp_path / "ferm.conf").write_text(f"@include 'blocked';\n{rules}\n")
    done = run(FERM, "--noexec", "--lines", "--test", tmp_path / "ferm.conf", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for one in ("192.0.2.0/25", "198.51.100.7/32", "2001:db8::/32"):
        assert f"--source {one} --jump DROP" in done.stdout


@pytest.mark.parametrize("listed", [LISTED, []])
def test_varnish_compiles_it(listed: list[str]) -> None:
    acl = exported("varnish", listed)
    use = "sub vcl_recv { if (client.ip ~ blocked_nets) { return (synth(403)); } }"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # varnishd reads it as a user of its own
        (folder / "site.vcl").write_text(f"vcl 4.0;\nbackend default none;\n{acl}{use}\n")
        done = run("varnishd", "-C", "-f", folder / "site.vcl", "-n", folder / "work")
    assert done.returncode == 0, done.stderr
    assert ("192.0.2.0" in done.stderr + done.stdout) == bool(listed)


def test_apache_takes_it(tmp_path: Path) -> None:
    assert apache(tmp_path, exported("apache")).returncode == 0
    assert apache(tmp_path, "Require not ip 192.0.2.0/99\n").returncode == 1


def apache(folder: Path, lines: str) -> subprocess.CompletedProcess[str]:
    """Apache's test of a configuration that has these lines where the site has its web_deny_conditions."""
    modules = ("mpm_event", "authn_core", "authz_core", "authz_host")
    site = [
        *(f"LoadModule {one}_module {MODULES}/mod_{one}.so" for one in modules),
        "ServerName lists.test",
        "ErrorLog error.log",
    ]
    site += ["Listen 127.0.0.1:8", "<Location />", "<RequireAll>", "Require all granted", f"Include {folder}/blocked"]
    (folder / "blocked").write_text(lines)
    (folder / "site.conf").write_text("\n".join([*site, "</RequireAll>", "</Location>", ""]))
    return run("apache2", "-t", "-d", folder, "-f", folder / "site.conf")


def test_the_programs_are_there() -> None:
    """`make parts` installs them; without one the test that needs it fails, and says so here."""
    assert [one for one in ("nft", str(FERM), "varnishd", "apache2") if not shutil.which(one)] == []


NETWORK = st.builds(
    lambda n, length: ipaddress.IPv4Network((n, length), strict=False), st.integers(0, 4095), st.integers(20, 32)
)


@given(st.lists(NETWORK, max_size=5), st.lists(NETWORK, max_size=3))
def test_what_is_spared_is_left_out_and_nothing_else(listed: list[Network], spared: list[Network]) -> None:
    found = spans(table([str(one) for one in listed]), lambda _: True, spared, NOW)
    numbers = [number for one in found for number in range(one.first, one.last + 1)]
    assert numbers == sorted(set(numbers))
    wanted = {int(ip) for one in listed for ip in one} - {int(ip) for one in spared for ip in one}
    assert set(numbers) == wanted


def test_what_has_expired_or_is_not_asked_for_is_left_out() -> None:
    made = table(["192.0.2.0/24"], expires=int(NOW))
    assert spans(made, lambda _: True, (), NOW) == []
    assert spans(made, lambda _: True, (), NOW - 1) == [span("192.0.2.0/24")]
    assert spans(table(["192.0.2.0/24"]), lambda of: of.name == "other", (), NOW) == []


def test_each_format_has_its_reader_here() -> None:
    assert list(FORMATS) == ["exim", "nftables", "ferm", "apache", "varnish", "plain"]
    assert network_exports.text("plain", [], "x").startswith("# Written by")
