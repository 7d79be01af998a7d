#!/bin/sh
# Installs the real programs that the tests and the demo run: Debian's exim4-daemon-heavy, spamd, rspamd and a few
# tools, and Mailman core from PyPI in a virtual environment of its own, .parts/mailman.
#
# Promises: no service is started by its package, neither now nor at the next boot; no package is removed to make room;
# no rules are fetched from the network; a run that finds everything in place changes nothing and takes less than a
# second. Needs root only when Debian packages are missing. On failure it says what to do and exits 1; the long output of
# apt and pip is in .parts/install.log.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
parts=$(cd "$here/../.." && pwd)/.parts
python=/usr/bin/python3 # Debian's own: Mailman runs as an unprivileged user, who may not look into root's home
services="exim4 spamd rspamd nftables varnish prometheus" # of those packages that bring one
packages="exim4-daemon-heavy spamassassin spamd rspamd python3-venv systemd gcc libc6-dev openssl"
packages="$packages nftables apache2-bin varnish" # with ferm: what reads the exports of networks
packages="$packages prometheus" # with promtool: what reads the metrics and the alert rules
policy=/usr/sbin/policy-rc.d
log=$parts/install.log

say() { printf 'parts: %s\n' "$*"; }
die() { printf 'parts: %s\n' "$*" >&2; exit 1; }

missing_packages() {
    for package in $packages; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s ' "$package"
    done
}

# A package's maintainer script asks policy-rc.d before it starts a service; 101 is "forbidden".
forbid_starting() {
    [ -e "$policy.before-mailgate" ] || [ ! -e "$policy" ] || mv "$policy" "$policy.before-mailgate"
    printf '#!/bin/sh\n# mailgate: only while the packages of its tests are installed\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap allow_starting EXIT
    trap 'exit 1' HUP INT TERM
}

allow_starting() {
    rm -f "$policy"
    [ ! -e "$policy.before-mailgate" ] || mv "$policy.before-mailgate" "$policy"
    trap - EXIT HUP INT TERM
}

logged() { # runs a command whose output matters only when it fails
    "$@" >>"$log" 2>&1 || {
        tail -n 15 "$log" >&2
        die "that failed: $*. All the output is in $log"
    }
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 "$@"
}

refuse_removals() { # Debian's mail servers exclude each other: never drop the one that this machine uses
    removed=$(apt -s install --no-install-recommends "$@" | sed -n 's/^Remv \([^ ]*\).*/\1/p' | tr '\n' ' ')
    [ -z "$removed" ] || die "installing $* would remove: $removed. Remove it yourself, or use a fresh machine."
}

install_packages() {
    [ "$(id -u)" -eq 0 ] || die "missing Debian packages: $*. Run this once as root, or: apt-get install $*"
    command -v apt-get >/dev/null 2>&1 || die "missing: $*. They are installed with apt-get, which is not here."
    say "installing from Debian: $*"
    # Package lists that do not know a package, or a version that has left the archive, are out of date.
    apt install --no-install-recommends --download-only --no-remove "$@" >>"$log" 2>&1 || logged apt update
    refuse_removals "$@"
    fresh=
    for service in $services; do
        [ -e "/etc/init.d/$service" ] || fresh="$fresh $service"
    done
    forbid_starting
    logged apt install --no-install-recommends --no-remove "$@"
    for service in $fresh; do
        [ ! -e "/etc/init.d/$service" ] ||
            update-rc.d "$service" disable >>"$log" 2>&1 || say "note: $service may start at the next boot"
    done
    allow_starting
}

# Installed, ferm's package would have a firewall at the next boot: unpacked it is but a program.
unpack_ferm() {
    say "unpacking ferm"
    mkdir -p "$parts/fresh"
    (cd "$parts/fresh" && apt download ferm) >>"$log" 2>&1 || die "ferm can't be downloaded. The output is in $log"
    rm -rf "$parts/ferm"
    logged dpkg -x "$parts"/fresh/ferm_*.deb "$parts/ferm"
    rm -rf "$parts/fresh"
}

install_mailman() {
    say "installing Mailman core from PyPI (half a minute)"
    rm -rf "$parts/mailman"
    logged "$python" -m venv "$parts/mailman"
    logged "$parts/mailman/bin/pip" --disable-pip-version-check install --require-hashes -r "$here/mailman.lock"
    chmod -R go+rX "$parts"
    cp "$here/mailman.lock" "$parts/mailman/installed.lock" # last: this file says that all before it worked
}

mkdir -p "$parts"
: >"$log"
missing=$(missing_packages)
# shellcheck disable=SC2086 # a list of words
[ -z "$missing" ] || install_packages $missing
[ -x "$parts/ferm/usr/sbin/ferm" ] || unpack_ferm
cmp -s "$here/mailman.lock" "$parts/mailman/installed.lock" || install_mailman
say "ready: $(exim4 --version | sed -n '1s/ #.*//p'), $("$parts/mailman/bin/mailman" --version 2>/dev/null || echo 'Mailman does not run')"
