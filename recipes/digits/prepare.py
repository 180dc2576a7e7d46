"""Write scikit-learn's digits as data/digits/train.npz and test.npz: 80 and 20 in 100 of each digit, drawn by seed 0.

    python recipes/digits/prepare.py

The pictures come with scikit-learn (extra `image`); nothing is fetched. 1,797 of them, 8 x 8 pixels in 17 greys
(Alpaydin and Kaynak 1998).
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

OUT = Path("data/digits")


def main() -> None:
    """Write both files."""
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (N, 8, 8)
    parts = train_test_split(pixels, digits.target, test_size=0.2, stratify=digits.target, random_state=0)
    OUT.mkdir(parents=True, exist_ok=True)
    for name, images, labels in (("train", parts[0], parts[2]), ("test", parts[1], parts[3])):
        np.savez_compressed(OUT / f"{name}.npz", images=images, labels=labels.astype(np.int64))
        print(f"{OUT / name}.npz: {len(images):,} pictures")


if __name__ == "__main__":
    main()
