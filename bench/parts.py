"""What the bench needs on the machine: its two C tools and Debian's Postfix, unpacked and not installed.

Debian's exim4 and postfix exclude each other as installed packages, and mailgate's tests need exim4; therefore only the
libraries of Postfix are installed, and Postfix itself is unpacked below `.parts/postfix` and run from there. A second
run finds everything in place and asks nothing of the network. A command that fails raises `CalledProcessError`, its
words on stderr.
"""

import grp
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "bench"
OUT = SOURCES / "out"
POSTFIX = ROOT / ".parts" / "postfix"


def prepare() -> None:
    """Make the tools and Postfix ready."""
    OUT.mkdir(exist_ok=True)
    for name in ("load", "sink"):
        _compile(name)
    _unpack_postfix()
    _add_postfix_users()


def _compile(name: str) -> None:
    source, target = SOURCES / f"{name}.c", OUT / name
    newest = max(file.stat().st_mtime for file in (source, SOURCES / "wire.h"))
    if target.exists() and target.stat().st_mtime > newest:
        return
    if not shutil.which("gcc") or not Path("/usr/include/stdio.h").exists():
        _install("gcc", "libc6-dev")
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, "-o", target, source], check=True)


def _unpack_postfix() -> None:
    if POSTFIX.exists():
        return
    POSTFIX.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=POSTFIX.parent, prefix="postfix.") as scratch:
        _update_lists()
        subprocess.run(
            ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "postfix"], cwd=scratch, check=True
        )
        (package,) = Path(scratch).glob("postfix_*.deb")
        _install_libraries_of(package)
        unpacked = Path(scratch, "root")
        subprocess.run(["dpkg", "-x", package, unpacked], check=True)
        # mkdtemp made the parent private, and Postfix's daemons leave root behind
        unpacked.chmod(0o755)
        unpacked.rename(POSTFIX)


def _install_libraries_of(package: Path) -> None:
    fields = subprocess.run(["dpkg-deb", "-f", package, "Depends"], check=True, capture_output=True, text=True).stdout
    names = re.findall(r"(?:^|, )(lib[^ ,]+)", fields)
    missing = [name for name in names if not _installed(name)]
    if missing:
        _install(*missing)


def _installed(package: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    return subprocess.run(query, check=False, capture_output=True, text=True).stdout == "installed"


def _update_lists() -> None:
    if not list(Path("/var/lib/apt/lists").glob("*_Packages*")):
        subprocess.run(["apt-get", "-q", "update"], check=True, stdout=sys.stderr)


def _install(*packages: str) -> None:
    _update_lists()
    options = ["-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", *options, "install", *packages], check=True, env=environment, stdout=sys.stderr)


def _add_postfix_users() -> None:
    """The account and the group that Postfix insists on, as Debian's package would make them."""
    for group in ("postfix", "postdrop"):
        try:
            grp.getgrnam(group)
        except KeyError:
            subprocess.run(["groupadd", "--system", group], check=True)
    try:
        pwd.getpwnam("postfix")
    except KeyError:
        home = ["--home-dir", "/nonexistent", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        subprocess.run(["useradd", "--system", "--gid", "postfix", *home, "postfix"], check=True)
