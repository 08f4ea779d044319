"""How many uploads a minute an address may make."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable

_MOST = 10_000  # addresses that are remembered


class Rates:
    """A bucket of permissions for each address, which fills by ``per_minute`` and holds as many.

    Args:
        per_minute: 0 for any number.
        clock: seconds, rising.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # what is left, and when that was so

    def take(self, address: str) -> float:
        """Take one permission.

        Returns:
            0, or the seconds until there is one again.
        """
        if not self.per_minute:
            return 0.0
        now, key = self._clock(), _network(address)
        left = self._left(key, now)
        if left < 1:
            return (1 - left) * 60 / self.per_minute
        if len(self._buckets) >= _MOST:
            self._buckets = {each: held for each, held in self._buckets.items() if not self._full(each, now)}
        if key in self._buckets or len(self._buckets) < _MOST:
            self._buckets[key] = (left - 1, now)
            return 0.0
        return 60 / self.per_minute

    def _left(self, key: str, now: float) -> float:
        left, since = self._buckets.get(key, (float(self.per_minute), now))
        return min(self.per_minute, left + (now - since) * self.per_minute / 60)

    def _full(self, key: str, now: float) -> bool:
        return self._left(key, now) >= self.per_minute


def _network(address: str) -> str:
    """One customer has a whole /64 of IPv6 addresses."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))
