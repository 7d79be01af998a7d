"""The lists of networks: read from files, kept as a table on disk, looked up in memory."""

from mailgate.edge.networks.files import Sources
from mailgate.edge.networks.telling import samples, sources_of, status
from mailgate.edge.networks.watch import Networks

__all__ = ["Networks", "Sources", "samples", "sources_of", "status"]
