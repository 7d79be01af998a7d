"""`make bench`: how fast mailgate is, next to Postfix doing the same work in the same minutes.

Promises: loopback only; every message is numbered and looked for at the other end, so a rate never hides a loss;
whatever is started is ended by its process id. It fails with exit status 1 when a relay lost, doubled or refused mail
(the table says which) or did not start; never because something was slow.
"""
