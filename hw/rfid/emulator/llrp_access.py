"""The emulated gantry's AccessSpec (LLRP 1.0.1): reads of memory, of the tags that fit its pattern; nothing else."""

from __future__ import annotations

import struct
from typing import NamedTuple

from hw.rfid.emulator import llrp_messages as m
from hw.rfid.emulator.engine import Refusal, bank_bytes, read_bank
from hw.rfid.emulator.scene import Tag

MOST_READS = 8  # in one spec
MOST_WORDS = 60  # of one read
_READ = 341  # C1G2Read
_DONE, _TAG_ERROR, _NO_RESPONSE = 0, 1, 2  # 1.0.1 has no word for the end of a bank, nor for a locked one


class _Read(NamedTuple):
    number: int
    password: int
    bank: int
    word: int
    words: int

    def of(self, tag: Tag) -> bytes:
        """C1G2ReadOpSpecResult: result, number, count of words, words."""
        read = read_bank(tag, self.bank, self.word, self.words, self.password)
        result = _NO_RESPONSE if read.wrong_password else _TAG_ERROR if read.locked or read.overrun else _DONE
        return m.tlv(349, struct.pack(">BHH", result, self.number, len(read.data) // 2) + read.data)


class _Target(NamedTuple):
    """C1G2TargetTag: the bits of a bank that count, and what they are to be; without bits, every tag fits."""

    bank: int
    match: bool
    bit: int
    mask: bytes
    length: int  # bits
    data: bytes

    def fits(self, tag: Tag) -> bool:
        if not self.length:
            return True
        content = bank_bytes(tag, self.bank)
        behind = 8 * len(content) - self.bit - self.length
        if behind < 0:
            return not self.match
        found = int.from_bytes(content) >> behind & (1 << self.length) - 1
        spare = -self.length % 8
        wanted, mask = int.from_bytes(self.data) >> spare, int.from_bytes(self.mask) >> spare
        return ((found ^ wanted) & mask == 0) is self.match


class Access(NamedTuple):
    """A spec as a host added it: disabled, for all antennas, without an end."""

    number: int
    inventory: int  # the ROSpec that it rides on; 0 all
    targets: tuple[_Target, ...]
    reads: tuple[_Read, ...]

    def of(self, tag: Tag) -> list[bytes]:
        """The results of a tag, up to the first read that failed; nothing of a tag that the spec is not for."""
        if not all(target.fits(tag) for target in self.targets):
            return []
        results = []
        for read in self.reads:
            results.append(read.of(tag))
            if results[-1][4] != _DONE:
                break
        return results


def parsed(body: bytes) -> Access:
    """An AccessSpec; Refusal for what this reader does not do: above all, everything but reading."""
    (number, antenna, protocol, state, inventory), rest = m.numbers("IHBBI", body)
    found = m.parts(rest)
    (trigger, _), _ = m.numbers("BH", m.part(found, 208))
    command = m.parts(m.part(found, 209))
    (when,), _ = m.numbers("B", m.part(found, 239))
    if not number or antenna or protocol != 1 or state or trigger or when:
        raise Refusal(m.FIELD_ERROR)
    targets = tuple(_target(value) for kind, value in m.parts(m.part(command, 338)) if kind == 339)
    reads = tuple(_read(kind, value) for kind, value in command if kind != 338)
    if not targets or not 0 < len(reads) <= MOST_READS:
        raise Refusal(m.FIELD_ERROR)
    return Access(number, inventory, targets, reads)


def _target(body: bytes) -> _Target:
    (flags, bit), rest = m.numbers("BH", body)
    length, mask, rest = _bits(rest)
    also, data, rest = _bits(rest)
    if length != also or rest:
        raise Refusal(m.FIELD_ERROR)
    return _Target(flags >> 6, bool(flags & 0x20), bit, mask, length, data)


def _bits(body: bytes) -> tuple[int, bytes, bytes]:
    (length,), rest = m.numbers("H", body)
    size = (length + 7) // 8
    if len(rest) < size:
        raise Refusal(m.FIELD_ERROR)
    return length, rest[:size], rest[size:]


def _read(kind: int, body: bytes) -> _Read:
    if kind != _READ:
        raise Refusal(m.UNSUPPORTED)
    (number, password, bank, word, words), rest = m.numbers("HIBHH", body)
    if rest or not 0 < words <= MOST_WORDS:
        raise Refusal(m.FIELD_ERROR)
    return _Read(number, password, bank >> 6, word, words)
