"""The plain sum."""

from darnax.kernels.sum import Ends, Sum


class Segments(Sum):
    """Gather, multiply, `jraph.segment_sum`: the slowest loop of all, and the quickest to
    compile.
    """

    ends: Ends

    @classmethod
    def of(cls, senders, receivers, ends, scalar):
        return cls(ends)

    def arrange(self, w):
        return w

    def __call__(self, arranged, x):
        return self.ends.sum(arranged, x)

    def __str__(self):
        return "segment sum"

    def why(self):
        return f"{len(self.ends.senders)} edges, no better way"
