"""Values of our annotations: good, bad, and at random near the border between the two."""

from __future__ import annotations

import random

GOOD = {
    "gang-size": ["1", "0008", "999999"],
    "expected-duration": ["90", "1.5", ".5", "5.", "1h30m", "90s", "100ms", "1.5h", "5µs", "999999999"],
    "input-bytes": ["0", "1", "1e9", "1.5Gi", "500M", "+3k", ".5Mi", "2E", "2E3", "1e-3"],
    "shuffle-bytes": ["1e99Ei"],
    "gang": ["a", "train-1", "A.b_c", "x" * 253],
    "job-class": ["etl", "Job/etl|image:1", "nächtlicher Lauf", "x" * 253, "ä" * 253],
    "queue-name": ["default", "q-1", "x" * 63],
    "on-behalf-of": ["alice", "https://issuer#alice", "system:serviceaccount:a:b"],
    "scheduler-name": ["fairlane"],
}
BAD = {
    "gang-size": ["0", "-1", "1.0", "1000000", " 4", "4 ", "4\n", "٣", "0000000001", "1e3"],
    "expected-duration": [
        *("0", "0s", "-5s", "1d", "1h 30m", " 90s", "90s\n", "1e3", "1000000000", "٣s"),
        *("300000h", "0.0000s", "x" * 33, "1" * 33, "s", ".s"),
    ],
    "input-bytes": ["-1", "-0", "1GB", "1 Gi", " ", "nan", "inf", "1e999", "٣", "0x10", "1" * 33, "1\n"],
    "shuffle-bytes": ["much", "+", ".", "e3"],
    "gang": ["-a", "a-", "a/b", "a b", "x" * 254, "ä", "a\n"],
    "job-class": [" a", "a ", "a\nb", "a\n", "\x7f", "x" * 254],
    "queue-name": ["GPU", "a.b", "-a", "a-", "x" * 64, "a_b", "a\n"],
    "on-behalf-of": [" ", "a\tb", "x" * 254],
    "scheduler-name": ["Fairlane", "default-scheduler", "fairlane "],
}
_ALPHABETS = {
    "gang-size": "0123456789 -.",
    "expected-duration": "0159.smhnuµ -",
    "input-bytes": "0159.+-eEkMGTPimnu ",
    "shuffle-bytes": "0159.+-eEkMGTPimnu ",
}
_OTHERS = "aZ09-_./ \x00\x7f\u00a0\u00e4\u2028\n"


def near_the_border(name: str, count: int, seed: int = 1) -> list[str]:
    """Random values, short, from characters that matter to the rule."""
    draw = random.Random(f"{seed}{name}")
    alphabet = _ALPHABETS.get(name, _OTHERS)
    return ["".join(draw.choices(alphabet, k=draw.randint(1, 7))) for _ in range(count)]
