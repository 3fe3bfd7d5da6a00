"""Many trials of one cause at little cost: all seats are made ready at once. What an act ends is then tried seat by seat, so that no trial disturbs
another; what the clock ends is tried on a few seats in the same second."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from bench.causes import Cause, TimedCause
from bench.seats import Seat
from bench.watch import Late, Service, Side, Trial

SAME_SECOND = 4  # seats whose sessions the clock ends together
ROUNDS = 3  # times as many as are needed if every trial is in time
Answer = dict[Side, float]


class Trials:
    def __init__(self, seats: list[Seat], host: str) -> None:
        self._seats = seats
        self._services = [Service(host, *seat.ports) for seat in seats]
        self._pool = ThreadPoolExecutor(len(seats), thread_name_prefix="seat")

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        for service in self._services:
            service.close()

    def on_all(self, work: Callable[[Seat], object]) -> None:
        """The first seat goes ahead: it makes what all need."""
        work(self._seats[0])
        list(self._pool.map(work, self._seats[1:]))

    def of(self, cause: Cause | TimedCause, count: int) -> Iterator[Answer]:
        """So many trials; those whose flows were not open in time are made again."""
        left = count
        for _ in range(ROUNDS * -(-count // len(self._seats))):
            chosen = self._seats[:left]
            self.on_all(cause.ready)
            for answer in self._tried(cause, chosen):
                left -= 1
                yield answer
            if not left:
                return
        raise TimeoutError(f"{left} of {count} trials were never in time")

    def _tried(self, cause: Cause | TimedCause, seats: list[Seat]) -> Iterator[Answer]:
        match cause:
            case Cause():
                yield from (self._trial(seat).run(lambda seat=seat: cause.act(seat)) for seat in seats)  # type: ignore[misc]
            case TimedCause():
                yield from self._timed(cause, seats)

    def _timed(self, cause: TimedCause, seats: list[Seat]) -> Iterator[Answer]:
        def one(place: int) -> Answer | None:
            moment = cause.arm(seats[place], cause.lead + place // SAME_SECOND)
            with contextlib.suppress(Late):
                return self._trial(seats[place]).run_until(moment)
            return None

        yield from (found for found in self._pool.map(one, range(len(seats))) if found is not None)

    def _trial(self, seat: Seat) -> Trial:
        return Trial(self._services[seat.number], seat.doors)
