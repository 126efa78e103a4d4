"""Procedural videos of coloured shapes with captions: the example's training data and its exam.

A scene is a frozen description; `render` draws any window of it at any size, `caption` says it in words.
NumPy only.
Every combination of colour, shape, motion and background belongs for good to one side, training or exam
(`held_out`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Rng = np.random.Generator

# Objects are saturated and backgrounds are not, so that an object can be found in decoded pixels by plain
# arithmetic.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.88, 0.12, 0.12),
    "green": (0.08, 0.68, 0.20),
    "blue": (0.12, 0.25, 0.90),
    "yellow": (0.96, 0.86, 0.10),
    "orange": (0.97, 0.52, 0.06),
    "purple": (0.56, 0.14, 0.78),
}
SHAPES = ("ball", "square", "triangle")
MOTIONS = ("right", "left", "up", "down", "falls", "bounces", "grows", "shrinks", "turns")
BACKGROUNDS = ("white", "grey", "dark", "stripes", "gradient", "sky", "field")
EXAM_SHARE = 8  # one combination in so many is never trained on

_VERBS: dict[str, tuple[str, ...]] = {
    "right": ("moves to the right", "slides to the right", "drifts to the right"),
    "left": ("moves to the left", "slides to the left", "drifts to the left"),
    "up": ("moves up", "rises", "floats up"),
    "down": ("moves down", "sinks", "drifts down"),
    "falls": ("falls", "drops to the ground", "falls down fast"),
    "bounces": ("bounces", "bounces up and down", "jumps up and down"),
    "grows": ("grows", "becomes larger", "gets bigger"),
    "shrinks": ("shrinks", "becomes smaller", "gets smaller"),
    "turns": ("turns", "spins", "turns around itself"),
}
_PLACES: dict[str, tuple[str, ...]] = {
    "white": ("on a white background", "over plain white"),
    "grey": ("on a grey background", "over plain grey"),
    "dark": ("on a dark background", "in the dark"),
    "stripes": ("in front of stripes", "over a striped background"),
    "gradient": ("over a soft gradient", "on a gradient background"),
    "sky": ("under a blue sky", "in the sky"),
    "field": ("over a green field", "above a field of grass"),
}
_RADIUS = (0.10, 0.17)  # of the frame's height


@dataclass(frozen=True)
class Thing:
    """One object: what it is and how it moves, in units of the frame's height and of seconds."""

    shape: str
    colour: str
    motion: str
    radius: float
    start: tuple[float, float]  # centre x, y at time 0
    velocity: tuple[float, float]  # per second
    rate: float = 0.0  # growth or turning per second; for bounces: jumps per second
    height: float = 0.0  # of a fall or a jump
    angle: float = 0.0


@dataclass(frozen=True)
class Scene:
    """Things over a background; `tint` varies the background, `aspect` is width over height."""

    things: tuple[Thing, ...]
    background: str
    tint: float
    aspect: float
    seconds: float


def held_out(colour: str, shape: str, motion: str, background: str) -> bool:
    """Whether this combination is kept for the exam."""
    digest = hashlib.sha256(f"{colour} {shape} {motion} {background}".encode()).digest()
    return digest[0] % EXAM_SHARE == 0


def sample(rng: Rng, aspect: float, seconds: float, exam: bool = False) -> Scene:
    """A random scene of one object, or (in training, one in ten) of two that cross."""
    while True:
        colour, shape, motion, background = (
            str(rng.choice(names)) for names in (tuple(COLOURS), SHAPES, MOTIONS, BACKGROUNDS)
        )
        if shape == "ball" and motion == "turns":
            continue  # nobody could see it
        if held_out(colour, shape, motion, background) == exam:
            break
    tint = float(rng.uniform())
    if not exam and rng.uniform() < 0.1:
        return Scene(_crossing(rng, aspect, seconds), background, tint, aspect, seconds)
    return Scene((_thing(rng, colour, shape, motion, aspect, seconds),), background, tint, aspect, seconds)


def _thing(rng: Rng, colour: str, shape: str, motion: str, aspect: float, seconds: float) -> Thing:
    radius = float(rng.uniform(*_RADIUS))
    x = float(rng.uniform(radius, aspect - radius))
    y = float(rng.uniform(radius, 1 - radius))
    still = Thing(shape, colour, motion, radius, (x, y), (0.0, 0.0), angle=_angle(rng, shape, motion))
    if motion in ("right", "left"):
        start, speed = _travel(rng, radius, aspect - radius, seconds)
        sign = 1 if motion == "right" else -1
        return replace(still, start=(start if sign > 0 else aspect - start, y), velocity=(sign * speed, 0.0))
    if motion in ("up", "down"):
        start, speed = _travel(rng, radius, 1 - radius, seconds)
        sign = 1 if motion == "down" else -1
        return replace(still, start=(x, start if sign > 0 else 1 - start), velocity=(0.0, sign * speed))
    if motion == "falls":
        top = float(rng.uniform(radius, 0.3))
        return replace(still, start=(x, top), height=1 - radius - top)
    if motion == "bounces":
        height = float(rng.uniform(0.35, 0.6))
        return replace(
            still, start=(x, 1 - radius - 0.02), height=height, rate=float(rng.uniform(1.2, 2.0)),
            angle=float(rng.uniform()),
        )  # fmt: skip
    if motion == "grows":
        small = float(rng.uniform(0.06, 0.09))
        large = float(rng.uniform(0.2, 0.3))
        return replace(still, radius=small, start=_inside(rng, large, aspect), rate=(large - small) / seconds)
    if motion == "shrinks":
        small, large = float(rng.uniform(0.05, 0.08)), float(rng.uniform(0.2, 0.3))
        return replace(still, radius=large, start=_inside(rng, large, aspect), rate=(small - large) / seconds)
    return replace(
        still, rate=float(rng.choice((-1, 1)) * rng.uniform(1.5, 3.0)), start=_inside(rng, radius, aspect)
    )


def _angle(rng: Rng, shape: str, motion: str) -> float:
    return float(rng.uniform(-0.3, 0.3)) if motion == "turns" and shape != "ball" else 0.0


def _inside(rng: Rng, radius: float, aspect: float) -> tuple[float, float]:
    return float(rng.uniform(radius, aspect - radius)), float(rng.uniform(radius, 1 - radius))


def _travel(rng: Rng, low: float, high: float, seconds: float) -> tuple[float, float]:
    """Where to start and how fast to go, to stay between low and high for the time there is."""
    distance = float(rng.uniform(0.45, 0.9)) * (high - low)
    return float(rng.uniform(low, high - distance)), distance / seconds


def _crossing(rng: Rng, aspect: float, seconds: float) -> tuple[Thing, ...]:
    """Two objects of different colours that go to opposite sides."""
    first, second = (str(c) for c in rng.choice(tuple(COLOURS), 2, replace=False))
    one = _thing(rng, first, str(rng.choice(SHAPES)), "right", aspect, seconds)
    other = _thing(rng, second, str(rng.choice(SHAPES)), "left", aspect, seconds)
    return one, other


def caption(scene: Scene, rng: Rng) -> str:
    """One of several sentences that describe the scene."""
    place = str(rng.choice(_PLACES[scene.background]))
    if len(scene.things) > 1:
        one, other = scene.things
        return f"a {one.colour} {one.shape} and {_article(other.colour)} {other.shape} cross {place}".replace(
            f"a {one.colour}", _article(one.colour), 1
        )
    (thing,) = scene.things
    verbs = _VERBS[thing.motion]
    if thing.shape == "ball" and thing.motion in ("right", "left"):
        verbs = (*verbs, f"rolls to the {thing.motion}")
    return f"{_article(thing.colour)} {thing.shape} {rng.choice(verbs)} {place}"


def _article(colour: str) -> str:
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour}"


def words() -> list[str]:
    """Every word that a caption may hold."""
    texts = [v for group in (*_VERBS.values(), *_PLACES.values()) for v in group]
    texts += [*COLOURS, *SHAPES, "a an and cross rolls to the"]
    return sorted({word for text in texts for word in text.split()})


def render(
    scene: Scene, frames: int, height: int, frame_rate: float, window: tuple[int, int, int, int] | None = None
) -> Array:
    """Pixels (3, frames, h, w) in −1..1 of a scene drawn `height` pixels high.

    `window` (top, left, h, w) in pixels cuts out a part before it is drawn; None is the whole frame.
    """
    top, left, h, w = window or (0, 0, height, round(height * scene.aspect))
    y = ((np.arange(h, dtype=np.float32) + top + 0.5) / height)[:, None]
    x = ((np.arange(w, dtype=np.float32) + left + 0.5) / height)[None, :]
    picture = np.repeat(_background(scene, x, y)[:, None], frames, axis=1)
    for index in range(frames):
        for thing in scene.things:
            _draw(picture[:, index], thing, x, y, index / frame_rate, 1 / height)
    return picture * np.float32(2) - np.float32(1)


def _background(scene: Scene, x: Array, y: Array) -> Array:
    """(3,h,w) in 0..1."""
    shape, tint = np.broadcast_shapes(x.shape, y.shape), scene.tint
    flat = np.ones((3, *shape), np.float32)

    def colour(r: float, g: float, b: float) -> Array:
        return np.array([r, g, b], np.float32)[:, None, None]

    def blend(low: Array, high: Array, weight: Array) -> Array:
        return (low + (high - low) * weight).astype(np.float32) * flat

    if scene.background in ("white", "grey", "dark"):
        level = {"white": 0.93 + 0.06 * tint, "grey": 0.5 + 0.15 * tint, "dark": 0.06 + 0.1 * tint}
        return flat * np.float32(level[scene.background])
    if scene.background == "stripes":
        period = 0.16 + 0.14 * tint
        wave = np.abs(((x / period) % 1.0) - 0.5) * 2  # a triangle of height 1, sharpened to a stripe
        weight = np.clip((wave - 0.5) * 24 * period + 0.5, 0, 1)
        return blend(colour(0.72, 0.72, 0.74), colour(0.94, 0.94, 0.92), weight + 0 * y)
    if scene.background == "gradient":
        first = colour(0.95, 0.80 - 0.1 * tint, 0.78)
        return blend(first, colour(0.70, 0.74, 0.86 + 0.08 * tint), y + 0 * x)
    sky = blend(colour(0.50, 0.70 + 0.05 * tint, 0.90), colour(0.86, 0.93, 0.98), y + 0 * x)
    if scene.background == "sky":
        return sky
    horizon = 0.6 + 0.15 * tint
    ground = blend(colour(0.52, 0.66, 0.42), colour(0.40, 0.54, 0.32), y + 0 * x)
    weight = np.clip((y - horizon) * 120 + 0.5, 0, 1) + 0 * x
    return (sky + (ground - sky) * weight).astype(np.float32)


def place(thing: Thing, time: float) -> tuple[float, float, float, float]:
    """Centre x, y, radius and angle at a time in seconds."""
    x, y = thing.start[0] + thing.velocity[0] * time, thing.start[1] + thing.velocity[1] * time
    radius, angle = thing.radius, thing.angle
    if thing.motion == "falls":
        y += min(0.5 * 3.2 * time**2, thing.height)
    elif thing.motion == "bounces":
        phase = (time * thing.rate + thing.angle) % 1.0
        y -= thing.height * 4 * phase * (1 - phase)
        angle = 0.0
    elif thing.motion in ("grows", "shrinks"):
        radius += thing.rate * time
    elif thing.motion == "turns":
        angle += thing.rate * time
    return x, y, radius, angle


def _draw(frame: Array, thing: Thing, x: Array, y: Array, time: float, pixel: float) -> None:
    """Lay the thing over frame (3,h,w) in 0..1, edges smoothed over about a pixel."""
    cx, cy, radius, angle = place(thing, time)
    dx, dy = x - np.float32(cx), y - np.float32(cy)
    if angle:
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        dx, dy = dx * cos + dy * sin, dy * cos - dx * sin
    distance = _distance(thing.shape, dx, dy, np.float32(radius))
    cover = np.clip(np.float32(0.5) - distance / np.float32(pixel), 0, 1)
    light = np.float32(1.08) - np.float32(0.22) * np.clip(
        (dx + dy) / np.float32(2 * radius) + np.float32(0.5), 0, 1
    )
    colour = np.array(COLOURS[thing.colour], np.float32)[:, None, None]
    frame += (np.clip(colour * light, 0, 1) - frame) * cover


def _distance(shape: str, dx: Array, dy: Array, radius: np.float32) -> Array:
    """Signed distance to the outline, negative inside."""
    if shape == "ball":
        return np.sqrt(dx * dx + dy * dy) - radius
    if shape == "square":
        return np.maximum(np.abs(dx), np.abs(dy)) - np.float32(0.85) * radius
    # An upright triangle of three half planes around the centre.
    side = np.float32(0.8660254) * np.abs(dx) - np.float32(0.5) * dy
    return np.maximum(side, dy) - np.float32(0.6) * radius
