import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.data.audit.hashes import HashIndex, phash, sampling


def brute_force(queries, hashes, distance):
    far = np.bitwise_count(queries[:, None] ^ hashes[None])
    return set(zip(*(a.tolist() for a in np.nonzero(far <= distance)), strict=True))


def found(queries, hashes, distance):
    pairs = [p for one, other in HashIndex(hashes, distance).near(queries) for p in zip(one, other, strict=True)]
    assert len(pairs) == len(set(pairs))  # each once
    return set(pairs)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(0, 11), st.sampled_from([300, 5000]), st.booleans())
def test_the_index_finds_what_brute_force_finds(seed, distance, count, crowded):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    if crowded:  # much in few places of the tables, as in real pictures
        hashes &= np.uint64(0xFF00_0000_F000_00F1)
    copies = hashes[rng.integers(0, count, 60)]
    for k in range(60):
        for bit in rng.choice(64, rng.integers(0, 14), replace=False):
            copies[k] ^= np.uint64(1) << np.uint64(bit)
    queries = np.concatenate((copies, hashes[:40]))
    assert found(queries, hashes, distance) == brute_force(queries, hashes, distance)


def test_a_crowded_place_of_a_table_is_not_cut_off():
    hashes = np.full(5000, 7, np.uint64)
    assert sum(len(one) for one, _ in HashIndex(hashes, 3).near(hashes[:300])) == 300 * 5000


def test_no_hashes_and_no_queries():
    none = np.zeros(0, np.uint64)
    some = np.arange(5000, dtype=np.uint64)
    assert list(HashIndex(none, 8).near(some)) == []
    assert list(HashIndex(some, 8).near(none)) == []
    assert len(phash(np.zeros((0, 32, 32), np.uint8))) == 0


def distance(one, other):
    return int(np.bitwise_count(one ^ other).max())


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(20, 10, 10))
    waves = np.cos(np.pi / 32 * np.outer(np.arange(10), np.arange(32) + 0.5))
    smooth = waves.T @ coarse @ waves
    low, high = smooth.min((1, 2), keepdims=True), smooth.max((1, 2), keepdims=True)
    return np.uint8(np.rint(40 + 120 * (smooth - low) / (high - low)))


def test_a_mirror_image_is_hashed_without_making_it(pictures):
    assert distance(phash(pictures, mirrored=True), phash(pictures[:, :, ::-1])) <= 1  # rounding


def test_brightness_and_contrast_hardly_matter(pictures):
    brighter = np.uint8(pictures * 1.2 + 20)
    assert distance(phash(pictures), phash(brighter)) <= 2


def test_a_part_is_hashed_as_the_cropped_picture_is(pictures):
    large = pictures.repeat(10, axis=1).repeat(10, axis=2)  # 320 px
    part = large[:, 32:288, 0:288].reshape(20, 32, 8, 32, 9).mean((2, 4)).astype(np.uint8)
    assert distance(phash(pictures, (0.1, 0.9), (0.0, 0.9)), phash(part)) <= 6
    assert np.bitwise_count(phash(pictures) ^ phash(part)).min() > 6


def test_sampling_a_window():
    whole, half, outside = sampling(np.array([0.0, 0.0, -0.25]), np.array([1.0, 0.5, 0.75]), 4)
    values = np.array([0.0, 1, 2, 3], np.float32)
    assert (whole @ values).tolist() == [0, 1, 2, 3]
    assert (half @ values).tolist() == [0, 0.25, 0.75, 1.25]
    assert (outside @ values).tolist() == [0, 0, 1, 2]  # what lies outside repeats the edge
