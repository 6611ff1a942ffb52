import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.tasks.segmentation.metrics.boundary import boundary_counts


def count(prediction, truth, classes=3, tolerance=1.0):
    masks = (torch.tensor(np.asarray(m), dtype=torch.uint8) for m in (prediction, truth))
    counts = boundary_counts(*masks, classes, tolerance)
    assert counts.dtype == torch.int64
    assert counts.shape == (classes, 4)
    return counts.tolist()


def brute_edges(mask, ignored):
    """Class of each boundary pixel by its place, pixel by pixel as the definition says."""
    height, width = mask.shape
    found = {}
    for y in range(height):
        for x in range(width):
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= v < height and 0 <= u < width
                if inside and not ignored[y, x] and not ignored[v, u] and mask[y, x] != mask[v, u]:
                    found[y, x] = int(mask[y, x])
    return found


def brute_counts(prediction, truth, classes, tolerance):
    ignored = truth == 255
    edges = brute_edges(prediction, ignored), brute_edges(truth, ignored)
    counts = np.zeros((classes, 4), np.int64)
    for column, (ours, theirs) in enumerate((edges, edges[::-1])):
        for place, k in ours.items():
            partners = np.array([p for p, other in theirs.items() if other == k]).reshape(-1, 2)
            near = (((partners - place) ** 2).sum(1) <= tolerance**2 + 1e-9).any()
            counts[k, 2 * column] += near
            counts[k, 2 * column + 1] += 1
    return counts.tolist()


def test_a_straight_boundary_moved_by_hand():
    """Columns 2 | 3 are the true boundary, 3 | 4 the predicted one, in 4 rows: each class is one pixel off."""
    truth = np.zeros((4, 8), int)
    truth[:, 3:] = 1
    prediction = np.zeros((4, 8), int)
    prediction[:, 4:] = 1
    assert count(prediction, truth, tolerance=1) == [[4, 4, 4, 4], [4, 4, 4, 4], [0, 0, 0, 0]]
    assert count(prediction, truth, tolerance=0.99) == [[0, 4, 0, 4], [0, 4, 0, 4], [0, 0, 0, 0]]


def test_distances_go_as_the_crow_flies():
    """A single pixel moved by (3, 4): its distance is 5; the class around it has boundary pixels 3.6 apart."""
    truth, prediction = np.zeros((9, 9), int), np.zeros((9, 9), int)
    truth[1, 1] = prediction[4, 5] = 1
    assert count(prediction, truth, 2, 5.0)[1] == [1, 1, 1, 1]
    assert count(prediction, truth, 2, 4.999)[1] == [0, 1, 0, 1]
    assert count(prediction, truth, 2, 5.0)[0][1::2] == [4, 4]


def test_what_borders_on_ignored_pixels_or_the_edge_is_no_boundary():
    truth = np.array([[0, 0, 255, 1, 1]] * 3)
    prediction = np.array([[0, 0, 1, 1, 1]] * 3)
    assert count(prediction, truth) == [[0] * 4] * 3
    assert count(np.full((3, 5), 2), np.full((3, 5), 2)) == [[0] * 4] * 3
    assert count(np.full((3, 5), 2), np.full((3, 5), 255)) == [[0] * 4] * 3


def test_a_class_in_one_mask_alone_is_not_matched():
    truth = np.array([[0, 0, 1, 1]])
    prediction = np.array([[0, 0, 2, 2]])
    assert count(prediction, truth, tolerance=5) == [[1, 1, 1, 1], [0, 0, 0, 1], [0, 1, 0, 0]]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2)])
def test_small_pictures_and_large_tolerances(size):
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 2, (2, *size))
    assert count(prediction, truth, 2, 50.0) == brute_counts(prediction, truth, 2, 50.0)


@settings(max_examples=60)
@given(
    height=st.integers(1, 14), width=st.integers(1, 14), k=st.sampled_from([1, 2, 3, 9, 20, 255]),
    tolerance=st.one_of(st.sampled_from([0.0, 1.0, 2**0.5, 5**0.5, 2.0, 2.5, 5.0]), st.floats(0, 20)),
    ignore=st.sampled_from([0, 0.1, 0.5]), smooth=st.booleans(), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_random_masks_against_brute_force(height, width, k, tolerance, ignore, smooth, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, (height, width))
    if smooth:
        truth = np.sort(truth, 1)
    prediction = np.where(rng.random(truth.shape) < 0.3, rng.integers(0, k, truth.shape), truth)
    truth[rng.random(truth.shape) < ignore] = 255
    assert count(prediction, truth, k, tolerance) == brute_counts(prediction, truth, k, tolerance)


def test_more_classes_than_bits_of_a_word():
    """150 classes in one picture, in columns of 2 pixels; the prediction is moved down, which changes nothing."""
    truth = np.repeat(np.arange(150), 2)[None].repeat(3, 0)
    counts = count(truth, truth, 150, 1.5)
    assert counts[0] == counts[149] == [3] * 4
    assert counts[1:149] == [[6] * 4] * 148
    moved = np.roll(truth, 2, 1)  # by a whole class: the nearest pixels of a class are 1 apart
    assert count(moved, truth, 150, 1.0) == brute_counts(moved, truth, 150, 1.0)
