"""What augmentation costs beside albumentations called bare, with and without a label map."""

import random
import time

import numpy as np

from hpa_kit.training.augmentation import POLICIES, Augmentation, build

SIDE, ROUNDS = 512, 60


def _milliseconds(function):
    started = time.perf_counter()
    results = [function(seed) for seed in range(ROUNDS)]
    return 1e3 * (time.perf_counter() - started) / ROUNDS, results


def test_every_policy_costs_about_what_albumentations_itself_costs():
    rng = np.random.default_rng(0)
    field = rng.integers(0, 256, (SIDE, SIDE, 4), dtype=np.uint8)
    cells = rng.integers(0, 400, (SIDE, SIDE)).astype(np.int32)
    print(f"\n{SIDE}², one core: ms per field, bare albumentations, ratio; with a label map")
    for number, policy in POLICIES.items():
        augmentation = Augmentation(number)
        augmentation(field, (0,), cells)
        bare = build(policy, SIDE, SIDE, "policy")

        def usual(seed, bare=bare):
            generator = np.random.default_rng((seed,))
            bare.set_random_state(generator, random.Random(int(generator.integers(2**63))))
            return bare(image=field)["image"]

        theirs, expected = _milliseconds(usual)
        ours, found = _milliseconds(lambda seed, change=augmentation: change(field, (seed,)))
        both, _ = _milliseconds(lambda seed, change=augmentation: change(field, (seed,), cells))
        print(f"policy {number}: {ours:6.2f}  {theirs:6.2f}  {ours / theirs:4.2f}   {both:6.2f}")
        assert all(map(np.array_equal, found, expected))
