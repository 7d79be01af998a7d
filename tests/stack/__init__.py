"""The stack: a real Exim, a real Mailman core and mailgate, on loopback ports and in a directory of their own.

    with Stack() as stack:
        stack.exim, stack.mailman, stack.gate     the programs: start, stop, freeze, read their logs
        stack.to_gate, stack.to_mailman           recorders on the wire between them

`fixtures.py` has it as pytest fixtures; `make demo` uses the same. `install.sh` installs the real parts once.
"""
