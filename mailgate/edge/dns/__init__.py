"""The DNS, asked through dnspython's messages: `Resolver` is what the checks of a sender ask."""

from mailgate.edge.dns.resolver import Resolver as Resolver
from mailgate.edge.dns.servers import system_nameservers as system_nameservers
