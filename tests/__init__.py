"""The tests of mailgate. They run the real Exim and the real Mailman (tests.stack); `make test` sets all up."""
