"""Trains and predicts with a backend as a user of the client does: `python -m support.train_a_backend ADDRESS BACKEND`.

Prints what came of it as JSON.
"""

import json
import sys

from support.tiny_dataset import blobs, sparse

from cellsparse import Client


def main() -> None:
    address, backend = sys.argv[1:]
    items = []
    for number, split in enumerate(("train", "val")):
        image, dense = blobs(seed=number)
        items.append((f"item{number}", split, image, sparse(dense)))
    image, dense = blobs(seed=7)
    with Client(address, timeout=60.0) as client:
        dataset = client.create_dataset("tiny", items)
        run = client.train(dataset.id, backend, steps=40, smoothing=0.5)
        done = run.wait()
        found = client.predict(run.id, image)
        record = {
            "backend": client.model(run.id).backend,
            "score": done.progress.validation["score"],
            "cells": int(found.max()),
            "overlap": float((found > 0)[dense > 0].mean()),
            "background": float((found > 0)[dense == 0].mean()),
        }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
