"""What the emulated readers have in common: commands in, frames out, rounds of inventory at their time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import ClassVar, NamedTuple

from hw.rfid.emulator.air import Air, Answer
from hw.rfid.emulator.faults import FaultKind, FaultPlan
from hw.rfid.emulator.frames import Command, CommandSplitter, Format, tag_crc
from hw.rfid.emulator.scene import Scene, Tag

_MAX_WAITING = 64  # commands behind a busy reader; a host that sends more has lost its mind


class Sent(NamedTuple):
    """One frame to the host and the moment it begins to leave."""

    at_s: float
    frame: bytes


class Refusal(Exception):  # noqa: N818 - a way out of a handler, not an error of this program
    """The command is answered with this error code; `detail` follows it."""

    def __init__(self, code: int, detail: bytes = b"") -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail


class Engine(ABC):
    """One reader model: `hear` takes the host's bytes, `play` lets time pass, both add to `outbox`.

    A command is a row in the model's table of handlers. Moments are seconds since the beginning.
    """

    TAGS_PER_S: ClassVar[float] = 167.0  # where the scene does not say

    def __init__(self, scene: Scene, faults: FaultPlan, form: Format) -> None:
        self.scene, self.setup, self.faults = scene, scene.reader, faults
        self.air = Air(scene)
        self.outbox: deque[Sent] = deque()
        self.heard: Counter[int] = Counter()  # commands by code, for whoever asks what a host did
        self.reads = 0  # tag reads sent
        self.baud = 115_200  # of the line; some models can be told another one
        self.now = 0.0
        self._splitter = CommandSplitter(form)
        self._waiting: deque[Command] = deque()
        self._asleep = False
        self._dead_until = 0.0
        self._last_read_s = 0.0  # when the last notice leaves
        self.power_up()

    # ----------------------------------------------------------------------------------------- outside

    @property
    def scanning(self) -> bool:
        """Whether an inventory is under way."""
        return self._next_round is not None

    @property
    def junk(self) -> int:
        """Bytes from the host that were part of no command."""
        return self._splitter.junk

    def power_up(self) -> None:
        """Forget everything, as after power-up."""
        self._next_round: float | None = None
        self._waiting.clear()
        self.settings()

    def reset_for(self, seconds: float) -> None:
        """Dead for some seconds, then as after power-up."""
        self.power_up()
        self._dead_until = self.now + seconds

    def sleep(self) -> None:
        """Until the next byte, which is lost with the settings."""
        self.power_up()
        self._asleep = True

    def hear(self, data: bytes, now: float) -> None:
        """Bytes from the host."""
        self.now = now
        if now < self._dead_until or not data:
            return
        if self._asleep:
            self._asleep, data = False, data[1:]
        for command in self._splitter.feed(data, now):
            if len(self._waiting) < _MAX_WAITING:
                self._waiting.append(command)
        self._serve()

    def play(self, until: float) -> None:
        """Let time pass: every round of inventory that is due happens at its own moment."""
        while self._next_round is not None and self._next_round <= until:
            self.now, self._next_round = self._next_round, None
            self.round()
            self._serve()
        self.now = until

    # --------------------------------------------------------------------------------- for the models

    @abstractmethod
    def settings(self) -> None:
        """Set region, power and the like to what they are after power-up."""

    @abstractmethod
    def handler(self, command: Command) -> Callable[[bytes], bytes | None]:
        """The function that carries out a command: its data to those of the answer, or None for no answer.

        Raises Refusal.
        """

    @abstractmethod
    def answer(self, code: int, data: bytes) -> bytes:
        """The frame of an answer."""

    @abstractmethod
    def refuse(self, code: int, refusal: Refusal) -> bytes:
        """The frame of a refused command."""

    @abstractmethod
    def round(self) -> None:
        """One round of inventory at `now`; calls `again` when another is to follow."""

    @property
    def busy(self) -> bool:
        """Whether commands wait at the moment."""
        return False

    def again(self, after_s: float) -> None:
        """The next round begins after this time."""
        self._next_round = self.now + after_s

    def stop(self) -> None:
        """No further round."""
        self._next_round = None

    def send(self, frame: bytes, after_s: float = 0.0) -> None:
        """Give a frame to the line."""
        self.outbox.append(Sent(self.now + after_s, frame))

    @property
    def pace_s(self) -> float:
        """How long one read takes, in seconds."""
        return 1 / (self.scene.radio.tags_per_s or self.TAGS_PER_S)

    def send_reads(self, answers: list[Answer], frame: Callable[[Answer], bytes]) -> float:
        """One notice for each answer at the pace of the air; returns how long the round took, in seconds."""
        for place, answer in enumerate(answers, start=1):
            self.send(frame(answer), place * self.pace_s)
        self.reads += len(answers)
        self._last_read_s = self.now + len(answers) * self.pace_s
        return max(1, len(answers)) * self.pace_s

    @property
    def reads_left_s(self) -> float:
        """How long notices of the last round are still to come, in seconds."""
        return max(0.0, self._last_read_s - self.now)

    def antenna_missing(self, antenna: int) -> bool:
        """Whether nothing is connected to this port (from 1)."""
        held = self.faults.lasting(FaultKind.ANTENNA_MISSING, self.now, antenna)
        return antenna in self.setup.missing_antennas or held is not None

    # ----------------------------------------------------------------------------------------- inside

    def _serve(self) -> None:
        while self._waiting and not self.busy:
            command = self._waiting.popleft()
            self.heard[command.code] += 1
            self._reply(command)

    def _reply(self, command: Command) -> None:
        reply: Callable[[int], bytes]
        try:
            data = self.handler(command)(command.data)
            if data is None:
                return
            reply = partial(self.answer, data=data)
        except Refusal as refusal:
            reply = partial(self.refuse, refusal=refusal)
        if self.faults.take(FaultKind.LOST_ACK, self.now):
            return
        late = self.faults.take(FaultKind.LATE_ACK, self.now)
        wrong = self.faults.take(FaultKind.WRONG_ACK, self.now)
        self.send(reply(command.code ^ 0x01 if wrong else command.code), late.seconds if late else 0.0)


def bank_bytes(tag: Tag, bank: int) -> bytes:
    """The content of a memory bank by its Gen2 number: 0 reserved, 1 EPC with CRC and PC, 2 TID, 3 user."""
    if bank == 0:
        return tag.kill_password.to_bytes(4) + tag.access_password.to_bytes(4)
    if bank == 1:
        return tag_crc(tag.pc + tag.epc) + tag.pc + tag.epc
    return (tag.tid, tag.user)[bank - 2]


def matches(tag: Tag, bank: int, bit: int, length: int, mask: bytes) -> bool:
    """Whether `length` bits of the bank from `bit` on equal those of the mask (Gen2 Select)."""
    content = bank_bytes(tag, bank)
    if bit + length > 8 * len(content) or length > 8 * len(mask):
        return False
    wanted = int.from_bytes(mask) >> 8 * len(mask) - length
    found = int.from_bytes(content) >> 8 * len(content) - bit - length & (1 << length) - 1
    return wanted == found


class Access(NamedTuple):
    """What a tag makes of a request to read its memory: the words, or the first thing that is wrong."""

    data: bytes = b""
    wrong_password: bool = False
    locked: bool = False
    overrun: bool = False


def read_bank(tag: Tag, bank: int, word: int, count: int, password: int) -> Access:
    """Read words of a bank as a Gen2 tag allows it: a wrong password silences it, a locked bank asks for one."""
    if password and password != tag.access_password:
        return Access(wrong_password=True)
    name = {0: "reserved", 3: "user"}.get(bank, "")
    if name in tag.locked and (password != tag.access_password or not password):
        return Access(locked=True)
    content = bank_bytes(tag, bank)
    end = 2 * (word + count) if count else len(content)  # word count 0 reads to the end of the bank (Gen2 Read)
    if end > len(content) or 2 * word >= len(content):
        return Access(overrun=True)
    return Access(data=content[2 * word : end])
