"""Digits by local learning against a kernel machine and backpropagation: five splits, three seeds, paired.

The networks are those of examples/digits.py, after the last epoch. Prints a table of docs/benchmarks.md. Usage:

    python benchmarks/learning.py                                # everything, in about half an hour on two cores
    python benchmarks/learning.py --networks learnt              # one of them
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

sys.path.append(str(Path(__file__).parent.parent / "examples"))
import digits

SPLITS, SEEDS = range(5), range(3)
NETWORKS = {
    "learnt": ("hidden couplings learnt", "deep", digits.LEARNT),
    "drawn": ("the same, hidden couplings as drawn", "deep", digits.READOUT),
    "features": ("fixed features, read-out learnt", "pooled", digits.READOUT),
}


def accuracies(score):
    """`score(data, seed)` for every split and seed, `(splits, seeds)`."""
    return np.array([[score(digits.digits(split), seed) for seed in SEEDS] for split in SPLITS])


def network(reads, rules, epochs):
    topology = digits.draw(reads)
    return accuracies(lambda data, seed: digits.train(topology, rules, data, epochs, seed)[-1].accuracy)


def difference(ours, theirs):
    """The mean paired difference, and a 95 % interval from its spread over splits, which share no seed's luck."""
    per_split = (ours - theirs).mean(1)
    half = 2.776 * per_split.std(ddof=1) / len(per_split) ** 0.5  # Student's t with 4 degrees of freedom
    return f"{per_split.mean():+.4f} ± {half:.4f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()
    baselines = {
        "SVC(rbf)": accuracies(lambda data, seed: digits.baseline(SVC(), data).accuracy),
        "MLP(256)": accuracies(
            lambda data, seed: digits.baseline(MLPClassifier((256,), random_state=seed), data).accuracy
        ),
    }
    print("| digits, 5 splits × 3 seeds | accuracy | over SVC(rbf) | over MLP(256) |\n|---|--:|--:|--:|")
    for name, scores in baselines.items():
        print(f"| {name} | {scores.mean():.4f} | | |")
    for which in options.networks:
        name, reads, rules = NETWORKS[which]
        scores = network(reads, rules, options.epochs)
        against = " | ".join(difference(scores, other) for other in baselines.values())
        print(f"| {name} | {scores.mean():.4f} | {against} |", flush=True)


if __name__ == "__main__":
    main()
