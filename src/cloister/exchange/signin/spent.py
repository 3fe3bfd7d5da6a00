"""Assertions that are good once; none outlives the process that asked for it."""

from collections import OrderedDict

MAX_SPENT = 50_000


class SpentTokens:
    """Ids of tokens that were used, until they are too old to be used anyway. Full, it accepts nothing."""

    def __init__(self) -> None:
        self._until: OrderedDict[tuple[str, str], int] = OrderedDict()

    def spend(self, issuer: str, id: str, until: int, now: float) -> bool:
        """True the first time."""
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        if (issuer, id) in self._until or len(self._until) >= MAX_SPENT:
            return False
        self._until[issuer, id] = until
        return True
