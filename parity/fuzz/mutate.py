"""Seeded damage: JSON trees whose values are replaced by unexpected ones, and bytes and texts that are
cut, flipped and repeated. The same generator gives the same damage.
"""

from __future__ import annotations

import json
import random
from typing import Any

# Texts that stand for what Python's own writer would not write; put in place after it has written.
_RAW = {
    '"@deep@"': "[" * 3000 + "]" * 3000,
    '"@deeper@"': '{"a":' * 60 + "1" + "}" * 60,
    '"@digits@"': "9" * 400,
    '"@many digits@"': "-" + "9" * 5000,
    '"@large@"': "1e999",
    '"@nan@"': "NaN",
    '"@half@"': r'"\ud800"',
    '"@null byte@"': r'"a\u0000b"',
}
_SCALARS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 255, 1 << 16, 1 << 31, 1 << 53, (1 << 63) - 1, 1 << 64, 0.0, -0.0,
    0.5, 1e-300, 1e300, -1e300, "", "a", "../../etc/passwd", "/dev/zero", "\x1b[2J", "ü🌊", "x" * 5000,
    "9" * 500, *(raw.strip('"') for raw in _RAW),
)  # fmt: skip
_TEXTS = (
    "0", "-1", "1e999", "nan", "inf", "9" * 400, "9" * 5000, "٣", "½", "\x1b[2J", "\0", "\udcff", "@", ":",
    ";", ",", "=", "..", "x", "..9", "1_0", "0x10", " ", "\n", "é", "🌊", "'", '"', "%s", "{}", "\\",
    "/" * 300, "A" * 300,
)  # fmt: skip


def value(rng: random.Random) -> Any:
    """A value that does not belong where it is put."""
    kind = rng.randrange(10)
    if kind == 0:
        return rng.choice(
            ([], {}, [0], [[]], {"a": 1}, [0] * 3000, [1, "a", None], {str(i): i for i in range(3000)})
        )
    if kind == 1:
        return rng.choice((-1, 1)) * rng.getrandbits(rng.choice((4, 16, 33, 65)))
    if kind == 2:
        return rng.uniform(-2, 2) * 10.0 ** rng.randint(-12, 12)
    return rng.choice(_SCALARS)


def tree(rng: random.Random, data: Any) -> Any:
    """`data`, changed in place at one random place (at its root, what is returned is another)."""
    holder, key = _place(rng, data)
    if holder is None:
        return value(rng)
    act = rng.randrange(8)
    if act == 0:
        del holder[key]
    elif act == 1 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = holder[key] * rng.choice((-1, 0, 2, 1000, 0.5, 1e9))
    elif act == 2 and isinstance(holder, list):
        holder[key:key] = [holder[key]] * rng.choice((1, 2, 200))
    elif act == 3 and isinstance(holder, dict):
        holder[rng.choice(("", "a", "x" * 300, "\x1b[2J", key + "_"))] = holder.pop(key)
    elif act == 4:
        other, place = _place(rng, data)
        holder[key] = json.loads(json.dumps(other[place] if other is not None else 0))
    else:
        holder[key] = value(rng)
    return data


def _place(rng: random.Random, data: Any) -> tuple[Any, Any]:
    """A container within `data` and a key in it; deep places are as likely as shallow ones."""
    holder, key = None, None
    while isinstance(data, dict | list) and data and (holder is None or rng.random() < 0.85):
        holder = data
        key = rng.choice(list(data)) if isinstance(data, dict) else rng.randrange(len(data))
        data = data[key]
    return holder, key


def written(rng: random.Random, data: Any) -> bytes:
    """The JSON text of `data`, with what no writer writes, and now and then a name twice."""
    text = json.dumps(data)
    for mark, raw in _RAW.items():
        text = text.replace(mark, raw)
    if rng.random() < 0.02:
        text = text.replace("{", '{"a": 1, "a": 2,', 1)
    return text.encode()


def json_bytes(rng: random.Random, text: bytes) -> bytes:
    """A JSON text with one to four of its values changed, in one of ten cases its bytes."""
    if rng.random() < 0.1:
        return raw_bytes(rng, text)
    data = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = tree(rng, data)
    return written(rng, data)


def raw_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes with one to four pieces cut, flipped, repeated, overwritten or put in."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(found) + 1)
        length = min(rng.choice((1, 1, 2, 8, 200)), len(found) - at)
        act = rng.randrange(6)
        if act == 0:
            del found[at:]
        elif act == 1:
            del found[at : at + length]
        elif act == 2:
            found[at:at] = found[at : at + length] * rng.choice((1, 2, 100))
        elif act == 3:
            found[at : at + length] = rng.randbytes(length)
        elif act == 4:
            found[at:at] = rng.choice(
                (b"\xff" * 8, b"\0" * 8, b"\x80", b'"', b"{", b"[", b"\xed\xa0\x80", b"&a", b"*a")
            )
        elif length:
            found[at] ^= 1 << rng.randrange(8)
    return bytes(found)


def text(rng: random.Random, original: str) -> str:
    """A text with one to three pieces replaced, put in or cut."""
    found = original
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(found) + 1)
        end = min(len(found), at + rng.choice((0, 0, 1, 1, 2, 5)))
        found = found[:at] + rng.choice(("", *_TEXTS)) + found[end:]
    return found
