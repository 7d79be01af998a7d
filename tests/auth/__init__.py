"""SPF, DKIM, DMARC and ARC: real signatures, a real DNS server."""
