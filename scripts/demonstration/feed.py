"""What the page is told: the newest value of each topic, and a few passing ones. Memory is bounded, nobody waits for a
slow page."""

from __future__ import annotations

import json
import threading
from collections import deque
from typing import Any

MAX_PASSING = 64


class Feed:
    """Many tell, many listen, each in a thread of its own."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 1
        self._lasting: dict[str, tuple[int, str]] = {}
        self._passing: deque[tuple[int, str, str]] = deque(maxlen=MAX_PASSING)
        self._over = False

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self._over

    def tell(self, topic: str, value: Any) -> None:
        """A lasting, JSON-ready value: who listens later gets it too; the same once more is no news."""
        text = json.dumps(value, ensure_ascii=False)
        with self._changed:
            if self._lasting.get(topic, (0, ""))[1] != text:
                self._number += 1
                self._lasting[topic] = (self._number, text)
                self._changed.notify_all()

    def pass_by(self, topic: str, value: Any) -> None:
        """A value for who listens now; the oldest are dropped for who does not keep up."""
        with self._changed:
            self._number += 1
            self._passing.append((self._number, topic, json.dumps(value, ensure_ascii=False)))
            self._changed.notify_all()

    def after(self, number: int, timeout_s: float) -> tuple[int, list[tuple[str, str]]]:
        """Topics and JSON texts since `number`, in order, and the number to ask with next; waits for the first.

        0 is for a new listener: all that lasts at once, and nothing that has passed by.
        """
        with self._changed:
            if number:
                self._changed.wait_for(lambda: self._over or self._number > number, timeout_s)
            found = [(at, topic, text) for topic, (at, text) in self._lasting.items() if at > number]
            found += [one for one in self._passing if number and one[0] > number]
            return self._number, [(topic, text) for _, topic, text in sorted(found)]

    def close(self) -> None:
        """Let every listener go."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
