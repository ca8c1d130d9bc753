"""ONION on SST-2 test rows: a shortlist against one deletion at a time, same language model.

    python -m benchmarks.text.onion_cost [--rows 300] [--lm FOLDER]

Prints sentences per second, the speed-up, and on how many rows both delete the same words. Every second row carries an
inserted rare word. The bar is the 95th percentile of the drops of ordinary words. Without --lm: a trigram of the
training rows.
"""

from __future__ import annotations

import argparse
import time

import torch

from torchbands.core.seeding import RowRng
from torchbands.datasets import load_text
from torchbands.defenses.inputs._deletions import deletions, without
from torchbands.language import LanguageModel, NeuralLM, NGram
from torchbands.triggers.text import InsertWords


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--lm", default="")
    options = parser.parse_args()
    lm: LanguageModel = NeuralLM.load(options.lm) if options.lm else NGram.fit(load_text("sst2", "train")[0])
    plain = load_text("sst2", "test")[0][: options.rows]
    rows = list(plain)
    rows[::2] = InsertWords(words=("cf",))(rows[::2], RowRng(0, torch.arange(len(rows[::2]))))
    bar = float(deletions(lm, plain, None).drop.double().quantile(0.95))
    start = time.perf_counter()
    every = without(rows, deletions(lm, rows, None), bar)
    whole = time.perf_counter() - start
    print(f"every word: {len(rows) / whole:.0f} sentences/s")
    for most in (3, 5, 10, 15):
        start = time.perf_counter()
        some = without(rows, deletions(lm, rows, most), bar)
        spent = time.perf_counter() - start
        same = sum(a == b for a, b in zip(every, some, strict=True)) / len(rows)
        print(f"shortlist {most}: {len(rows) / spent:.0f} sentences/s, {whole / spent:.1f} times, {same:.1%} the same")


if __name__ == "__main__":
    main()
