"""Which images are copies of others: exactly, or re-encoded, resized, relit or mirrored.

Nearly equal images are found by the correlation of small high-pass pictures. High-pass, because two
ears in one studio share pose and shading, and their plain thumbnails correlate above 0.99; their
ridges do not. A candidate at 16×16 is looked at again at 32×32.

The thresholds lie in the gaps measured on 560 AMI and 13,755 EarVN photographs and 3,000 drawn ears
at 64×64. Copies (JPEG at quality 60, 10 % brighter or darker, 64→48→64, mirrored, combinations):
at least 0.978 coarse and 0.942 fine. Ears of different people: at most 0.91 and 0.83. What lies
between is the same ear in the same moment, or cropped a pixel closer.
"""

from __future__ import annotations

import cv2
import numpy as np

from earteach.inspection.pixel_values import images_at_once, rows
from earteach.inspection.survey import Survey, shrunk, to_luma

COARSE_BLUR, COARSE_LIKENESS = 1.5, 0.93
FINE_SIZE, FINE_BLUR, FINE_LIKENESS = 32, 2.0, 0.88
FLAT = 0.75
"""Pictures whose high-pass part is below this many levels (RMS) are like nothing and everything."""
BLOCK = 1024


def exact_matches(queries: Survey, references: Survey) -> np.ndarray:
    """Pairs `(K, 2)` of a query and the first reference with the same pixels."""
    first = _first_rows(references)
    digests = enumerate(queries.facts.digests.tolist())
    return _pairs([(row, first[digest]) for row, digest in digests if digest in first])


def repeats(images: Survey) -> np.ndarray:
    """Pairs `(K, 2)` of an image and the earlier one that it repeats exactly."""
    pairs = exact_matches(images, images)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _first_rows(images: Survey) -> dict[bytes, int]:
    first: dict[bytes, int] = {}
    for row, digest in enumerate(images.facts.digests.tolist()):
        first.setdefault(digest, row)
    return first


def _pairs(found: list[tuple[int, int]]) -> np.ndarray:
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def near_matches(queries: Survey, references: Survey) -> np.ndarray:
    """Pairs `(K, 2)` of a query and the reference that is nearly, but not exactly, the same."""
    known = set(exact_matches(queries, references)[:, 0].tolist())
    asked = [row for row in _distinct(queries, keep_repeats=True) if row not in known]
    return _verified(queries, references, asked, _distinct(references), earlier=False)


def near_repeats(images: Survey) -> np.ndarray:
    """Pairs `(K, 2)` of an image and the earlier one that it nearly, but not exactly, repeats."""
    distinct = _distinct(images)
    return _verified(images, images, distinct, distinct, earlier=True)


def _distinct(images: Survey, keep_repeats: bool = False) -> list[int]:
    """Rows that can be compared: with finite values, and once where they are repeated exactly."""
    seen = range(len(images.array)) if keep_repeats else sorted(_first_rows(images).values())
    return [row for row in seen if images.facts.finite[row]]


def _verified(
    queries: Survey, references: Survey, asked: list[int], among: list[int], *, earlier: bool
) -> np.ndarray:
    """The best match of each row in `asked`, where both the coarse and the fine look agree."""
    if not asked or not among:
        return _pairs([])
    ours = describe(queries.facts.thumbnails[asked], COARSE_BLUR)
    theirs = ours if earlier else describe(references.facts.thumbnails[among], COARSE_BLUR)
    scores, places = best_matches(ours, theirs, earlier=earlier)
    likely = np.flatnonzero(scores > COARSE_LIKENESS)
    pairs = np.stack([np.asarray(asked)[likely], np.asarray(among)[places[likely]]], axis=1)
    return pairs[_fine_likeness(queries, references, pairs) > FINE_LIKENESS]


def _fine_likeness(queries: Survey, references: Survey, pairs: np.ndarray) -> np.ndarray:
    found = [np.zeros(0, np.float32)]
    step = min(images_at_once(queries.array), images_at_once(references.array))
    for start in range(0, len(pairs), step):
        left, right = pairs[start : start + step].T
        products = _fine(queries, left) * _fine(references, right)
        even, odd = products.sum(axis=2).T
        found.append(even + np.abs(odd))
    return np.concatenate(found)


def _fine(images: Survey, which: np.ndarray) -> np.ndarray:
    luma = to_luma(images.reading.rgb(rows(images.array, which)))
    return describe(shrunk(luma, FINE_SIZE), FINE_BLUR)


def describe(pictures: np.ndarray, blur: float) -> np.ndarray:
    """float32 `(n, S, S)` to `(n, 2, S²/2)`: high-pass, of unit norm, even and odd halves.

    The halves are the picture plus and minus its mirror image. With a and b the products of two
    pictures' even and odd halves, a + b is the correlation of the two, and a − b that with one of
    them mirrored: both for the price of one.
    """
    smooth = _blur_matrix(pictures.shape[1], blur)
    sharp = pictures - smooth @ pictures @ smooth.T
    sharp -= sharp.mean(axis=(1, 2), keepdims=True)
    half = pictures.shape[2] // 2
    left, right = sharp[:, :, :half], sharp[:, :, : half - 1 : -1]
    halves = np.stack([left + right, left - right], axis=1).reshape(len(pictures), 2, -1)
    halves /= np.sqrt(2)
    norms = np.linalg.norm(halves, axis=(1, 2), keepdims=True)
    flat = norms < FLAT * pictures.shape[1]
    unit: np.ndarray = np.where(flat, 0, halves / np.maximum(norms, 1e-9)).astype(np.float32)
    return unit


def _blur_matrix(size: int, sigma: float) -> np.ndarray:
    """`M` such that `M @ picture` is the picture blurred along its columns, edges reflected."""
    kernel = cv2.getGaussianKernel(2 * round(4 * sigma) + 1, sigma, cv2.CV_32F)
    identity = np.eye(size, dtype=np.float32)
    blurred: np.ndarray = cv2.sepFilter2D(
        identity, -1, np.ones(1, np.float32), kernel, borderType=cv2.BORDER_REFLECT
    )
    return blurred


def best_matches(
    queries: np.ndarray, references: np.ndarray, *, earlier: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """For each query the likeness and place of the most similar reference, mirrored or not.

    `earlier`: both are the same images, and only those before the query are looked at. The products
    are taken block by block, so that memory does not grow with the number of pairs.
    """
    scores = np.zeros(len(queries), np.float32)
    places = np.zeros(len(queries), np.int64)
    for start in range(0, len(queries), BLOCK):
        block = slice(start, start + BLOCK)
        for other in range(0, start + 1 if earlier else len(references), BLOCK):
            likeness = _likeness(queries[block], references[other : other + BLOCK])
            if earlier and other == start:
                likeness = np.tril(likeness, -1)
            _keep_better(scores[block], places[block], likeness, other)
    return scores, places


def _likeness(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    even = queries[:, 0] @ references[:, 0].T
    odd = queries[:, 1] @ references[:, 1].T
    np.abs(odd, out=odd)
    even += odd
    return even


def _keep_better(scores: np.ndarray, places: np.ndarray, likeness: np.ndarray, offset: int) -> None:
    found = likeness.argmax(axis=1)
    values = likeness[np.arange(len(found)), found]
    better = values > scores
    scores[better] = values[better]
    places[better] = found[better] + offset
