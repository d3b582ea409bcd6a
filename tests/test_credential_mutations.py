"""Altered codes: nothing altered is accepted, and every refusal has a code.

Each mutation is drawn from its own seed; a failure names the seed and the text. What an answer must keep is in
`tests/fuzz_credential.py`, whose target also runs here.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cbor2
import pytest

from tests.fuzz_credential import MISSING, fill, judge, main, one_input, seeds, world
from tests.golden import CASES
from verifier.codec import base45, cose
from verifier.codec.credential import INNER, PREFIX, decode, encode, parse_claims
from verifier.types import CodeEvidence, CodeFault, SignatureState

# Of every kind of code one that is accepted: stored, printed, live by the platform's key and by the holder's.
ORIGINALS = [
    "stored-es256",
    "stored-ed25519",
    "stored-sm2",
    "printed-es256",
    "online-fresh",
    "live-holder-key",
    "live-holder-ed25519",
]
P256_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_L = 2**252 + 27742317777372353535851937790883648493

# ------------------------------------------------------------------------------------------ codes as trees


@dataclass
class Map:
    """A map as a list of pairs, so that it can have a key twice and any order."""

    pairs: list[list[Any]]


@dataclass
class Nested:
    """A byte string that holds one CBOR item, behind the COSE_Sign1 tag or not."""

    inside: list[Any]  # one item, as long as nothing was altered
    tagged: bool


def tree_of(data: bytes) -> Nested:
    """A COSE_Sign1 as a tree, down into its header, its payload and the credential inside a presentation."""
    protected, unprotected, payload, signature = cbor2.loads(data[1:])
    parts = [Nested([grown(cbor2.loads(protected))], False), grown(unprotected)]
    return Nested([[*parts, Nested([grown(cbor2.loads(payload))], False), signature]], True)


def grown(value: Any) -> Any:
    if isinstance(value, dict):
        return Map([[key, tree_of(item) if key == INNER else grown(item)] for key, item in value.items()])
    return [grown(item) for item in value] if isinstance(value, list | tuple) else value


def head(major: int, number: int, widen: float, rng: random.Random) -> bytes:
    """The head of an item, longer than it must be with the probability `widen`."""
    width = next(w for w, limit in ((0, 24), (1, 2**8), (2, 2**16), (4, 2**32), (8, 2**64)) if number < limit)
    if rng.random() < widen:
        width = rng.choice([w for w in (1, 2, 4, 8) if w >= width])
    if width == 0:
        return bytes((major << 5 | number,))
    return bytes((major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[width],)) + number.to_bytes(width)


def content(node: Nested, widen: float, rng: random.Random) -> bytes:
    tag = bytes((cose.TAG,)) if node.tagged else b""
    return tag + b"".join(written(item, widen, rng) for item in node.inside)


def text_of(tree: Nested) -> str:
    return encode(content(tree, 0, random.Random(0)))


def written(node: Any, widen: float, rng: random.Random) -> bytes:
    """The tree as CBOR in the order it has, with long heads as `head` makes them."""
    if isinstance(node, Nested):
        inside = content(node, widen, rng)
        return head(2, len(inside), widen, rng) + inside
    if isinstance(node, Map):
        flat = b"".join(written(item, widen, rng) for pair in node.pairs for item in pair)
        return head(5, len(node.pairs), widen, rng) + flat
    if isinstance(node, list):
        return head(4, len(node), widen, rng) + b"".join(written(item, widen, rng) for item in node)
    if type(node) is int and -(2**64) <= node < 2**64:
        return head(int(node < 0), node if node >= 0 else -1 - node, widen, rng)
    if isinstance(node, bytes | str):
        data = node.encode() if isinstance(node, str) else node
        return head(2 if isinstance(node, bytes) else 3, len(data), widen, rng) + data
    return cbor2.dumps(node)


def slots(node: Any) -> list[tuple[list[Any], int]]:
    """Every place in the tree: the list that holds it, and where."""
    lists = [node.inside] if isinstance(node, Nested) else node.pairs if isinstance(node, Map) else [node]
    found = []
    for held in lists:
        if isinstance(held, list):
            for place, item in enumerate(held):
                found += [(held, place), *slots(item)]
    return found


# ------------------------------------------------------------------------------------------- the mutations


def changed_scalar(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bytes) and value:
        place = rng.randrange(len(value))
        return value[:place] + bytes((value[place] ^ 1 << rng.randrange(8),)) + value[place + 1 :]
    if isinstance(value, str) and value:
        place = rng.randrange(len(value))
        return value[:place] + rng.choice("A0粤\x1b\u202e/é") + value[place + 1 :]
    return value + rng.choice((-1, 1, 10, 2**31)) if type(value) is int else rng.randrange(70)


def retyped(value: Any, rng: random.Random) -> Any:
    number = value if type(value) is int else 1
    return rng.choice(
        (None, True, False, float(number), str(value), b"", "", [], Map([]), [value], Map([[1, value]]),
         cbor2.CBORTag(18, number), number, -number, 2**64 - 1, -(2**64), bytes(8), {"a": number})
    )  # fmt: skip


def deep(value: Any, rng: random.Random) -> Any:
    for _ in range(rng.choice((1, 2, 5, 6, 7, 40))):
        value = [value]
    return value


def malleated(signature: Any, rng: random.Random) -> Any:
    """The other form of a signature's second half: n - s of ECDSA, S + L of Ed25519, or r and s exchanged."""
    if not (isinstance(signature, bytes) and len(signature) == cose.SIGNATURE_LENGTH):
        return changed_scalar(signature, rng)
    r, s = signature[:32], signature[32:]
    little, big = int.from_bytes(s, "little") + ED25519_L, (P256_N - int.from_bytes(s)) % 2**256
    return rng.choice((r + big.to_bytes(32), r + (little % 2**256).to_bytes(32, "little"), s + r))


def alter_tree(tree: Nested, other: Nested, rng: random.Random) -> None:
    """One change at one place; none where an earlier change left nothing."""
    places = slots(tree)
    if not places:
        return
    number = rng.randrange(len(places))
    held, place = places[number]
    kind = rng.randrange(9)
    if kind < 4:
        held[place] = (changed_scalar, retyped, deep, malleated)[kind](held[place], rng)
    elif kind == 4:
        del held[place]
    elif kind == 5:
        held.insert(rng.randrange(len(held) + 1), held[place])
    elif kind == 6:
        rng.shuffle(held)
    elif kind == 7:
        for held, place in places:
            if isinstance(held[place], bytes) and len(held[place]) == cose.SIGNATURE_LENGTH:
                held[place] = malleated(held[place], rng)
    else:
        # The part that stands in the same place of another code, so that whole parts are exchanged.
        theirs = slots(other)
        there, at = theirs[min(number, len(theirs) - 1)]
        held[place] = there[at]


def alter_pairs(tree: Nested, rng: random.Random) -> None:
    """A key twice, a pair away, another order, one more key."""
    maps = [held[place] for held, place in slots(tree) if isinstance(held[place], Map)]
    pairs = rng.choice(maps).pairs if maps else []
    kind = rng.randrange(4)
    if kind == 0 and pairs:
        pairs.append(list(rng.choice(pairs)))
    elif kind == 1 and pairs:
        pairs.remove(rng.choice(pairs))
    elif kind == 2:
        rng.shuffle(pairs)
    else:
        pairs.insert(rng.randrange(len(pairs) + 1), [rng.choice((0, 2, 3, 33, 63, 64, -1, "crit", 2**32)), [1]])


def of_structure(text: str, other: str, rng: random.Random) -> str:
    tree = tree_of(data_of(text))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        if rng.random() < 0.3:
            alter_pairs(tree, rng)
        else:
            alter_tree(tree, tree_of(data_of(other)), rng)
    return encode(content(tree, rng.choice((0, 0, 0.03, 0.3)), rng))


def of_bytes(text: str, other: str, rng: random.Random) -> str:
    data, foreign = bytearray(data_of(text)), data_of(other)
    for _ in range(rng.randint(1, 4)):
        kind, place = rng.randrange(6), rng.randrange(len(data) or 1)
        if kind == 0:
            data[place : place + 1] = rng.randbytes(1)
        elif kind == 1:
            data[place : place + 1] = bytes(byte ^ 1 << rng.randrange(8) for byte in data[place : place + 1])
        elif kind == 2:
            data[place:place] = rng.randbytes(rng.randint(1, 4))
        elif kind == 3:
            del data[place : place + rng.randint(1, 4)]
        elif kind == 4:
            data = data[: place + 1]
        else:
            data[place:] = foreign[place:]
    return encode(bytes(data))


def of_text(text: str, other: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 3)):
        kind, place = rng.randrange(7), rng.randrange(len(text) or 1)
        letter = rng.choice(base45.ALPHABET)
        if kind == 0:
            text = text[:place] + letter + text[place + 1 :]
        elif kind == 1:
            text = text[:place] + letter + text[place:]
        elif kind == 2:
            text = text[:place] + text[place + rng.randint(1, 3) :]
        elif kind == 3:
            text = text[:place]
        elif kind == 4:
            text = text[:place] + other[place:]
        elif kind == 5:
            text = text[:place] + rng.choice("aé\x00\n\r\t粤Ａ=_\u202e") + text[place + 1 :]
        else:
            text = text[:place] + text[place:].swapcase()
    return text


MUTATIONS: tuple[Callable[[str, str, random.Random], str], ...] = (of_text, of_bytes, of_structure, of_structure)


def data_of(text: str) -> bytes:
    return base45.decode(text.removeprefix(PREFIX))


# ------------------------------------------------------------------------------------------------ the tests


@pytest.fixture(scope="module")
def originals() -> dict[str, str]:
    """The texts that this machine accepts; without SM2 in libcrypto that of SM2 is not among them."""
    texts = {name: CASES[name]["text"] for name in ORIGINALS}
    found = {name: text for name, text in texts.items() if judge(text.encode()).fault is None}
    assert set(texts) - set(found) <= {"stored-sm2"}
    return found


def mutation(originals: dict[str, str], seed: str) -> tuple[str, str]:
    """The name of the original and the altered text."""
    rng = random.Random(seed)
    name, other = rng.choice(sorted(originals)), rng.choice(sorted(originals))
    text = originals[name]
    while text == originals[name]:  # an exchange of equal parts alters nothing
        text = rng.choice(MUTATIONS)(text, originals[other], rng)
    return name, text


def judged(originals: dict[str, str], seed: str) -> CodeEvidence:
    name, text = mutation(originals, seed)
    note = f"seed {seed}, from {name}: {text!r}"
    payload = text.encode()
    try:
        evidence = judge(payload)
    except AssertionError as exc:
        raise AssertionError(f"{exc}; {note}") from exc
    if evidence.fault is None and evidence.signature is SignatureState.VALID:
        # Accepted is one of the originals only: no change of what the signatures cover, whatever became of these.
        assert payload != originals[name].encode() or evidence == judge(originals[name].encode()), note
        assert any(covered(payload) == covered(kept.encode()) for kept in originals.values()), note
    return evidence


def covered(payload: bytes) -> tuple[bytes, bytes]:
    """The bytes that the signatures stand for; a presentation covers the signature of the credential inside."""
    signed = decode(payload)
    outer = signed.presentation
    return signed.credential.to_be_signed, b"" if outer is None else outer.to_be_signed


def run(originals: dict[str, str], name: str, count: int) -> Counter[CodeFault | None]:
    return Counter(judged(originals, f"{name}:{number}").fault for number in range(count))


REACHED = {
    CodeFault.NOT_A_MARK,
    CodeFault.ENCODING,
    CodeFault.COSE_SHAPE,
    CodeFault.CBOR,
    CodeFault.HEADER,
    CodeFault.UNKNOWN_KEY,
    CodeFault.ALG,
    CodeFault.SIGNATURE,
    CodeFault.CLAIMS,
}


def test_2000_altered_codes_are_refused_with_a_code_or_say_what_the_original_said(originals):
    faults = run(originals, "normal", 2000)
    assert set(faults) >= REACHED  # the mutations reach every layer
    assert 0 < faults[None] < 200  # other signatures of the same bytes, and a line end


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
def test_100000_altered_codes_are_refused_with_a_code_or_say_what_the_original_said(originals, part):
    assert set(run(originals, f"long-{part}", 10_000)) >= REACHED


@pytest.mark.parametrize("name", ["stored-es256", "printed-es256", "online-fresh", "live-holder-key"])
def test_the_other_form_of_an_ecdsa_signature_changes_nothing(originals, name):
    tree = tree_of(data_of(originals[name]))
    signature = tree.inside[0][3]
    tree.inside[0][3] = signature[:32] + (P256_N - int.from_bytes(signature[32:])).to_bytes(32)
    text = text_of(tree)
    assert text != originals[name]
    assert judge(text.encode()) == judge(originals[name].encode())


@pytest.mark.parametrize("name", ["stored-ed25519", "live-holder-ed25519"])
def test_the_other_form_of_an_ed25519_signature_is_refused(originals, name):
    tree = tree_of(data_of(originals[name]))
    signature = tree.inside[0][3]
    s = int.from_bytes(signature[32:], "little") + ED25519_L
    tree.inside[0][3] = signature[:32] + s.to_bytes(32, "little")
    text = text_of(tree)
    assert judge(text.encode()).fault is CodeFault.SIGNATURE


def test_the_wrapper_of_one_credential_fits_no_other(originals):
    live = [name for name in originals if decode(originals[name].encode()).presentation]
    inner = {name: tree_of(data_of(originals[name])).inside[0][2].inside[0].pairs[1][1] for name in live}
    for name in live:
        for other in set(live) - {name}:
            tree = tree_of(data_of(originals[name]))
            if inner[name] == inner[other]:
                continue  # one credential that was shown twice
            tree.inside[0][2].inside[0].pairs[1][1] = inner[other]
            text = text_of(tree)
            assert judge(text.encode()).signature is SignatureState.INVALID, (name, other)


def test_an_altered_key_id_is_an_unknown_key_and_no_forgery(originals):
    for name, text in originals.items():
        kid = decode(text.encode()).credential.kid
        for bit in range(64):
            altered = (int.from_bytes(kid) ^ 1 << bit).to_bytes(8)
            evidence = judge(encode(data_of(text).replace(kid, altered)).encode())
            assert evidence.signature is SignatureState.UNKNOWN_KEY, (name, bit)


def test_trees_are_written_as_they_were_read(originals):
    for name, text in originals.items():
        assert text_of(tree_of(data_of(text))) == text, name


# --------------------------------------------------------------------------------------- the fuzzer's target


def test_the_fuzzers_target_takes_every_example():
    for data in seeds():
        one_input(data)


def test_the_fuzzers_target_takes_random_bytes():
    rng = random.Random(2026)
    for number in range(2000):
        data = rng.randbytes(rng.randrange(1, 120))
        try:
            one_input(data)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; input {number}: {data.hex()}") from exc


def test_the_fuzzers_target_sees_a_broken_promise(monkeypatch):
    """A verifier that takes every signature is found out by the first altered code."""
    text = CASES["stored-es256"]["text"]
    tree = tree_of(data_of(text))
    mark = next(value for key, value in tree.inside[0][2].inside[0].pairs if key == -65537)
    mark.pairs[0][1] = "粤B99999"
    altered = text_of(tree).encode()
    assert judge(altered).fault is CodeFault.SIGNATURE
    assert parse_claims(decode(altered).credential.payload)[0].plate.text == "粤B99999"
    world()  # made with the honest verifier
    monkeypatch.setattr("verifier.verify.verify_with", lambda *_: True)
    with pytest.raises(AssertionError, match="altered claims were proven"):
        one_input(altered)


def test_without_the_fuzzer_the_target_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "atheris", None)
    assert main(["fuzz"]) == 1
    assert capsys.readouterr().err == MISSING


def test_an_empty_corpus_is_filled_with_the_examples(tmp_path):
    fill(tmp_path / "corpus")
    assert {path.read_bytes() for path in (tmp_path / "corpus").iterdir()} == set(seeds())
    (tmp_path / "corpus" / "own").write_bytes(b"")
    fill(tmp_path / "corpus")
    assert (tmp_path / "corpus" / "own").exists()
