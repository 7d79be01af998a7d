"""The whole way of the mail on real parts: what goes in at Exim and what comes out at Mailman, whatever happens."""
