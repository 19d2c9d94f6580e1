"""Makes the sample data set: two-arm gestures drawn as curves, cut into windows, quantised by k-means.

    python make_gestures.py [--seed 7] [--codes 128] [--out DIR]

Writes gestures.json (rows {text_query, motion_tokens, participant_id}) and gestures_codebook.json (what each
token stands for). Needs numpy. Equal seeds give equal files with the same numpy on the same processor.

A frame has 8 numbers: for the right and the left arm the wrist's place (x to the performer's left, y up, z forward;
origin between the shoulders, arm length 1) and how open the hand is (0 fist, 1 flat).
"""

import argparse
import json
import os

import numpy as np

FPS = 30
WINDOW = 4  # frames of a token
MIN_TOKENS, MAX_TOKENS = 12, 40
FEATURES = ["right_x", "right_y", "right_z", "right_open", "left_x", "left_y", "left_z", "left_open"]
REST = np.array([-0.30, -0.85, 0.10, 0.5, 0.30, -0.85, 0.10, 0.5])
RIGHT, LEFT = slice(0, 4), slice(4, 8)


def tau(u, n):
    """The angle of n turns at part u of the stroke."""
    return 2 * np.pi * n * u


def column(u, *values):
    """[frames, 4] of one arm; constants are repeated."""
    return np.stack([np.broadcast_to(v, u.shape) for v in values], axis=1)


def mirrored(arm):
    return arm * np.array([-1.0, 1.0, 1.0, 1.0])


def polygon(u, corners):
    """Constant speed along straight lines between the corners (x, y)."""
    corners = np.asarray(corners, float)
    at = u * (len(corners) - 1)
    i = np.minimum(at.astype(int), len(corners) - 2)
    return corners[i] + (at - i)[:, None] * (corners[i + 1] - corners[i])


# Strokes of one arm, drawn as the right one: u from 0 to 1, n repeats -> x, y, z, open.
def wave(u, n):
    return column(u, -0.45 + 0.18 * np.sin(tau(u, n)), 0.55 - 0.03 * np.cos(tau(u, 2 * n)), 0.35, 1.0)


def circle(u, n):
    return column(u, -0.30 + 0.25 * np.sin(tau(u, n)), 0.05 + 0.25 * np.cos(tau(u, n)), 0.55, 0.2)


def zigzag(u, n):
    triangle = 2 * np.abs((u * n) % 1 - 0.5) - 0.5
    return column(u, -0.30 + 0.36 * triangle, 0.45 - 0.75 * u, 0.55, 0.2)


def square(u, n):
    xy = polygon((u * n) % 1.0, [(-0.55, 0.3), (-0.05, 0.3), (-0.05, -0.2), (-0.55, -0.2), (-0.55, 0.3)])
    return column(u, xy[:, 0], xy[:, 1], 0.55, 0.2)


def knock(u, n):
    return column(u, -0.25, 0.20, 0.50 + 0.15 * np.sin(tau(u, n)), 0.0)


def drum(u, n, phase=0.0):
    return column(u, -0.25, -0.35 + 0.18 * np.sin(tau(u, n) + phase), 0.45, 0.1)


def thanks(u, n):
    """Flat hand from the chin outwards and down."""
    s = np.clip(u * 1.6, 0, 1)
    return column(u, -0.05 - 0.12 * s, 0.28 - 0.33 * s, 0.15 + 0.50 * s, 1.0)


def push(u, n):
    return column(u, -0.22, 0.05, 0.45 - 0.30 * np.cos(tau(u, n)), 1.0)


def swim(u, n):
    return column(u, -0.35 + 0.25 * np.cos(tau(u, n)), 0.0, 0.45 + 0.25 * np.sin(tau(u, n)), 0.9)


def clap(u, n):
    return column(u, -0.16 + 0.15 * np.cos(tau(u, n)), 0.0, 0.45, 1.0)


def clap_high(u, n):
    return column(u, -0.20 + 0.19 * np.cos(tau(u, n)), 0.80, 0.10, 1.0)


def flap(u, n):
    return column(u, -0.80, -0.10 + 0.30 * np.sin(tau(u, n)), 0.05, 0.8)


def hold(x, y, z, openness):
    return lambda u, n: column(u, x, y, z, openness)


def drum_other(u, n):
    return drum(u, n, np.pi)


# text, stroke of the right arm, stroke of the left arm (mirrored), repeats, seconds of the stroke
GESTURES = [
    ("wave the right hand", wave, None, 3, 2.0),
    ("wave the left hand", None, wave, 3, 2.0),
    ("wave both hands", wave, wave, 3, 2.0),
    ("draw a circle with the right hand", circle, None, 2, 2.2),
    ("draw a circle with the left hand", None, circle, 2, 2.2),
    ("draw a zigzag with the right hand", zigzag, None, 3, 2.0),
    ("draw a square with the left hand", None, square, 1, 2.1),
    ("clap the hands", clap, clap, 4, 1.9),
    ("clap above the head", clap_high, clap_high, 3, 1.9),
    ("point up with the right hand", hold(-0.30, 0.90, 0.10, 0.1), None, 1, 1.6),
    ("point forward with the right hand", hold(-0.20, 0.05, 0.90, 0.1), None, 1, 1.6),
    ("point to the side with the left hand", None, hold(-0.90, 0.10, 0.15, 0.1), 1, 1.6),
    ("thank you", thanks, None, 1, 1.6),
    ("cross the arms", hold(0.18, -0.10, 0.25, 0.3), hold(0.18, -0.05, 0.32, 0.3), 1, 1.5),
    ("raise both arms", hold(-0.35, 0.90, 0.05, 1.0), hold(-0.35, 0.90, 0.05, 1.0), 1, 1.6),
    ("push forward with both hands", push, push, 2, 2.0),
    ("knock on a door", knock, None, 4, 1.6),
    ("drum on a table", drum, drum_other, 4, 2.0),
    ("swim", swim, swim, 2, 2.1),
    ("flap like a bird", flap, flap, 3, 2.2),
]

# participant_id: size of the movement, tempo, offset of the body (x, y), size of the tremor
PERFORMERS = {
    "p1": (1.00, 1.00, (0.00, 0.00), 0.006),
    "p2": (0.88, 1.15, (0.03, -0.04), 0.008),
    "p3": (1.10, 0.85, (-0.02, 0.03), 0.006),
    "p4": (0.95, 0.95, (0.02, 0.05), 0.012),
    "p5": (1.05, 1.20, (-0.04, -0.02), 0.008),
    "p6": (0.92, 0.80, (0.01, 0.02), 0.010),
}
SPEEDS = [0.85, 1.0, 1.0, 1.2]  # one take each


def ease(s):
    return s * s * (3 - 2 * s)


def blend(a, b, n):
    s = ease((np.arange(n) + 1) / (n + 1))[:, None]
    return a + s * (b - a)


def perform(gesture, performer, speed, rng):
    """[frames, 8]: rest, way there, stroke, way back, rest."""
    _, right, left, repeats, seconds = gesture
    size, tempo, offset, tremor = PERFORMERS[performer]
    rate = FPS / (tempo * speed * rng.uniform(0.95, 1.05))
    n = int(round(seconds * rate))
    u = np.arange(n) / n
    stroke = np.tile(REST, (n, 1))
    if right:
        stroke[:, RIGHT] = right(u, repeats)
    if left:
        stroke[:, LEFT] = mirrored(left(u, repeats))
    still = np.tile(REST, (int(rng.integers(3, 8)), 1))
    way = max(4, int(round(0.45 * rate)))
    frames = np.concatenate([still, blend(REST, stroke[0], way), stroke, blend(stroke[-1], REST, way), still])
    place = [0, 1, 2, 4, 5, 6]
    frames[:, place] *= size
    frames[:, [0, 4]] += offset[0]
    frames[:, [1, 5]] += offset[1]
    frames[:, place] += wobble(len(frames), len(place), rng) + tremor * rng.standard_normal((len(frames), len(place)))
    return frames


def wobble(n, width, rng):
    """Slow drift: hands never pass the same place twice."""
    drift = np.zeros((n, width))
    for i in range(1, n):
        drift[i] = 0.95 * drift[i - 1] + 0.005 * rng.standard_normal(width)
    return drift


def windows(frames):
    n = len(frames) // WINDOW
    return frames[: n * WINDOW].reshape(n, WINDOW * frames.shape[1])


def distances(x, centres):
    """Squared; the part that is equal for all centres is left out."""
    return (centres**2).sum(1)[None, :] - 2 * x @ centres.T


def kmeans(x, n_codes, rng, rounds=60):
    """Lloyd's rounds from k-means++ starts; a code without windows moves to the window that fits worst."""
    centres = [x[rng.integers(len(x))]]
    nearest = ((x - centres[0]) ** 2).sum(1)
    while len(centres) < n_codes:
        centres.append(x[rng.choice(len(x), p=nearest / nearest.sum())])
        nearest = np.minimum(nearest, ((x - centres[-1]) ** 2).sum(1))
    centres = np.array(centres)
    for _ in range(rounds):
        codes = distances(x, centres).argmin(1)
        error = ((x - centres[codes]) ** 2).sum(1)
        for c in range(n_codes):
            mine = codes == c
            if mine.any():
                centres[c] = x[mine].mean(0)
            else:
                worst = error.argmax()
                centres[c] = x[worst]
                error[worst] = 0
    return centres


def write_rows(path, rows):
    with open(path, "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def write_codebook(path, centres):
    codes = np.round(centres, 4).reshape(len(centres), WINDOW, len(FEATURES))
    lines = ",\n".join(json.dumps(code) for code in codes.tolist())
    head = {"frames_per_token": WINDOW, "frames_per_second": FPS, "features": FEATURES, "n_codes": len(centres)}
    with open(path, "w", encoding="utf-8") as f:
        f.write(json.dumps(head)[:-1] + ', "codes": [\n' + lines + "\n]}\n")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--codes", type=int, default=128)
    parser.add_argument("--out", default=here)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    takes = []
    for gesture in GESTURES:
        for performer in PERFORMERS:
            for speed in SPEEDS:
                takes.append((gesture[0], performer, windows(perform(gesture, performer, speed, rng))))
    lengths = [len(t[2]) for t in takes]
    if min(lengths) < MIN_TOKENS or max(lengths) > MAX_TOKENS:
        raise SystemExit(f"takes have {min(lengths)} to {max(lengths)} tokens: change a gesture's seconds")
    everything = np.concatenate([t[2] for t in takes])
    scale = np.tile(everything.reshape(-1, len(FEATURES)).std(0), WINDOW)  # every feature counts alike
    centres = kmeans(everything / scale, args.codes, rng)
    rows = []
    for text, performer, x in takes:
        codes = distances(x / scale, centres).argmin(1)
        rows.append({"text_query": text, "motion_tokens": " ".join(map(str, codes)), "participant_id": performer})
    order = rng.permutation(len(rows))
    write_rows(os.path.join(args.out, "gestures.json"), [rows[i] for i in order])
    write_codebook(os.path.join(args.out, "gestures_codebook.json"), centres * scale)
    print(f"{len(rows)} rows, {len(GESTURES)} texts, {min(lengths)} to {max(lengths)} tokens a row, {args.codes} codes")


if __name__ == "__main__":
    main()
