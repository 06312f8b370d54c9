"""Copies among images: exact ones, and re-encoded, resized, relit or mirrored ones.

Near copies are found by the correlation of small high-pass thumbnails. Plain thumbnails of two ears
from one studio correlate above 0.99, because they share pose and shading; their ridges do not. A
candidate at 16×16 is checked again at 32×32.

The thresholds lie in the gaps measured on 560 AMI and 13,755 EarVN photographs and 3,000 drawn ears
at 64×64. Copies (JPEG at quality 60, 10 % brighter or darker, 64→48→64, mirrored, combinations)
correlate at least 0.978 at 16×16 and 0.942 at 32×32; ears of different people at most 0.91 and 0.83.
What lies between is the same ear at the same moment, or cropped a pixel closer.
"""

from __future__ import annotations

import cv2
import numpy as np

from earteach.inspection.survey import Survey, chunk_size, shrink, stored_images, to_luma

COARSE_BLUR, COARSE_THRESHOLD = 1.5, 0.93
FINE_SIZE, FINE_BLUR, FINE_THRESHOLD = 32, 2.0, 0.88
FLAT = 0.75
"""In levels (RMS): a fainter high-pass thumbnail is noise, and matches nothing."""
BLOCK_SIZE = 1024


def exact_matches(queries: Survey, references: Survey) -> np.ndarray:
    """Pairs `(K, 2)` of a query and the first reference with the same pixels."""
    first = _first_rows(references)
    digests = enumerate(queries.stats.digests.tolist())
    return _pairs([(row, first[digest]) for row, digest in digests if digest in first])


def exact_repeats(images: Survey) -> np.ndarray:
    """Pairs `(K, 2)` of an image and the earlier one that it repeats exactly."""
    pairs = exact_matches(images, images)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def near_matches(queries: Survey, references: Survey) -> np.ndarray:
    """Pairs `(K, 2)` of a query and the reference that is nearly, but not exactly, the same."""
    exact = set(exact_matches(queries, references)[:, 0].tolist())
    rows = [row for row in np.flatnonzero(queries.stats.finite).tolist() if row not in exact]
    return _verified_matches(queries, rows, references, _distinct_rows(references))


def near_repeats(images: Survey) -> np.ndarray:
    """Pairs `(K, 2)` of an image and the earlier one that it nearly, but not exactly, repeats."""
    rows = _distinct_rows(images)
    return _verified_matches(images, rows, images, rows)


def _pairs(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _first_rows(images: Survey) -> dict[bytes, int]:
    digests = images.stats.digests.tolist()
    return {digest: row for row, digest in reversed([*enumerate(digests)])}


def _distinct_rows(images: Survey) -> list[int]:
    """Rows of finite images that do not repeat an earlier one exactly."""
    return [row for row in sorted(_first_rows(images).values()) if images.stats.finite[row]]


def _verified_matches(
    queries: Survey, query_rows: list[int], references: Survey, reference_rows: list[int]
) -> np.ndarray:
    """The best match of each query row that passes both the coarse and the fine threshold."""
    if not query_rows or not reference_rows:
        return _pairs([])
    left = describe(queries.stats.thumbnails[query_rows], COARSE_BLUR)
    right = describe(references.stats.thumbnails[reference_rows], COARSE_BLUR)
    scores, columns = best_matches(left, right, earlier=queries is references)
    likely = np.flatnonzero(scores > COARSE_THRESHOLD)
    originals = np.asarray(reference_rows)[columns[likely]]
    pairs = np.stack([np.asarray(query_rows)[likely], originals], axis=1)
    return pairs[_fine_scores(queries, references, pairs) > FINE_THRESHOLD]


def _fine_scores(queries: Survey, references: Survey, pairs: np.ndarray) -> np.ndarray:
    """The correlation of each pair at 32×32, float32 `(K,)`."""
    scores = [np.zeros(0, np.float32)]
    step = min(chunk_size(queries.array), chunk_size(references.array))
    for start in range(0, len(pairs), step):
        left, right = pairs[start : start + step].T
        products = _describe_rows(queries, left) * _describe_rows(references, right)
        even, odd = products.sum(axis=2).T
        scores.append(even + np.abs(odd))
    return np.concatenate(scores)


def _describe_rows(images: Survey, rows: np.ndarray) -> np.ndarray:
    luma = to_luma(images.values.to_rgb(stored_images(images.array, rows)))
    return describe(shrink(luma, FINE_SIZE), FINE_BLUR)


def describe(thumbnails: np.ndarray, blur: float) -> np.ndarray:
    """float32 `(n, S, S)` to `(n, 2, S²/2)`: high-pass, of unit norm, even and odd halves.

    The halves are the thumbnail plus and minus its mirror image. With a and b the dot products of two
    thumbnails' even and odd halves, a + b is their correlation, and a − b that with one of them
    mirrored: both for the price of one.
    """
    smooth = _blur_matrix(thumbnails.shape[1], blur)
    sharp = thumbnails - smooth @ thumbnails @ smooth.T
    sharp -= sharp.mean(axis=(1, 2), keepdims=True)
    half = thumbnails.shape[2] // 2
    left, right = sharp[:, :, :half], sharp[:, :, : half - 1 : -1]
    halves = np.stack([left + right, left - right], axis=1).reshape(len(thumbnails), 2, -1)
    halves /= np.sqrt(2)
    norms = np.linalg.norm(halves, axis=(1, 2), keepdims=True)
    flat = norms < FLAT * thumbnails.shape[1]
    return np.where(flat, 0, halves / np.maximum(norms, 1e-9)).astype(np.float32)


def _blur_matrix(size: int, sigma: float) -> np.ndarray:
    """`M` such that `M @ image` is the image blurred along its columns, edges reflected."""
    kernel = cv2.getGaussianKernel(2 * round(4 * sigma) + 1, sigma, cv2.CV_32F)
    identity, no_blur = np.eye(size, dtype=np.float32), np.ones(1, np.float32)
    return cv2.sepFilter2D(identity, -1, no_blur, kernel, borderType=cv2.BORDER_REFLECT)


def best_matches(
    queries: np.ndarray, references: np.ndarray, *, earlier: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The score and index of the reference most similar to each query, mirrored or not.

    `earlier`: both are the same images, and each is compared only with those before it. Works in
    blocks, so that memory does not grow with the number of pairs.
    """
    scores = np.zeros(len(queries), np.float32)
    indices = np.zeros(len(queries), np.int64)
    for start in range(0, len(queries), BLOCK_SIZE):
        block = slice(start, start + BLOCK_SIZE)
        for other in range(0, start + 1 if earlier else len(references), BLOCK_SIZE):
            even, odd = references[other : other + BLOCK_SIZE].swapaxes(0, 1)
            similarity = queries[block, 1] @ odd.T
            np.abs(similarity, out=similarity)
            similarity += queries[block, 0] @ even.T
            if earlier and other == start:
                similarity = np.tril(similarity, -1)
            best = similarity.argmax(axis=1)
            values = similarity[np.arange(len(best)), best]
            better = values > scores[block]
            scores[block][better] = values[better]
            indices[block][better] = best[better] + other
    return scores, indices
