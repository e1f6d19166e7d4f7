"""Which part of a refund still counts after the flow was lifted.

A flow that comes back after not waiting is lifted to V: absence is not banked.
A charge that is still open then may be too high, and its refund would take the
meter below that V, as if the flow had saved up its absence. So each return is
remembered with its *headroom*, (v_u - V) x w_u just after it, in work: refunds
of charges made before the return may together use no more of it. A charge that
turns out too low adds to the headroom, since the meter without lift was higher.

With exact knowledge of what a gang will use, the meter after all settlements
would be max(V at the return, meter at the return); this is what remains.
"""

from __future__ import annotations

from dataclasses import dataclass, field

RETURNS_KEPT = 32
"""Returns remembered; beyond, the one that limits least more than its successor is forgotten."""


@dataclass(slots=True)
class Lifts:
    """Returns of one flow: `at` counts its charges, `headroom` in work rises from one to the next."""

    at: list[int] = field(default_factory=list)
    headroom: list[float] = field(default_factory=list)

    def come_back(self, charges_made: int, headroom: float) -> None:
        """Remember a return after so many charges; earlier ones with no less headroom limit nothing more."""
        while self.headroom and self.headroom[-1] >= headroom:
            self._forget(-1)
        self.at.append(charges_made)
        self.headroom.append(headroom)
        if len(self.at) > RETURNS_KEPT:
            gaps = [later - earlier for earlier, later in zip(self.headroom, self.headroom[1:], strict=False)]
            self._forget(gaps.index(min(gaps)))

    def effective(self, charge_number: int, change: float) -> float:
        """How much of a change of that charge (negative: a refund) reaches the meter."""
        first = next((index for index, at in enumerate(self.at) if at >= charge_number), None)
        if first is None:
            return change
        change = max(change, -self.headroom[first])
        for index in range(first, len(self.headroom)):
            self.headroom[index] += change
        while first > 0 and self.headroom[first - 1] >= self.headroom[first]:
            first -= 1
            self._forget(first)
        return change

    def clear(self) -> None:
        """No charge is open: nothing is left to be refunded."""
        self.at.clear()
        self.headroom.clear()

    def _forget(self, index: int) -> None:
        del self.at[index]
        del self.headroom[index]
