"""What an address counts as, if somebody is known by it alone."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=4096)  # it is asked for each connection that is limited, and reading an IPv6 address takes 34 µs
def network(address: str) -> str:
    """`address` itself; of IPv6 the /64, which one customer has as a whole."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False).network_address)
