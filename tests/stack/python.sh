#!/bin/sh
# Makes .venv with PYTHON ($1), after seeing that it is new enough and can make one.
set -eu
python=${1:-python3}
if ! command -v "$python" >/dev/null 2>&1 || ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing python3-venv (Debian)"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv >/dev/null
    else
        echo "$python cannot make a virtual environment: install python3-venv, or run this as root on Debian" >&2
        exit 1
    fi
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mailgate needs Python 3.11 or newer; $python is older" >&2; exit 1; }
[ -x .venv/bin/python ] || "$python" -m venv .venv
