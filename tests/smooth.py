"""Rewards without steps: what rounding moves in a picture, it moves in them no further."""

from torch import Tensor

from treerl import Reward, Samples


class Bright(Reward):
    """The mean of all pixels."""

    def __call__(self, samples: Samples) -> Tensor:
        return samples.images.double().flatten(1).mean(1)


class Warm(Reward):
    """How much redder than blue a picture is."""

    def __call__(self, samples: Samples) -> Tensor:
        images = samples.images.double()
        return (images[:, 0] - images[:, 2]).flatten(1).mean(1)
