"""Drop-in replacements for the optimizers of ``torch.optim``: the whole step in one launch.

    optimizer = gpuopt.AdamW(model.parameters(), lr=1e-3)  # instead of torch.optim.AdamW

Each class is a subclass of its namesake, whose arguments, defaults, checks, groups, hooks and checkpoints it keeps.
What can also be done while the tensors pass by is asked for by the keywords of :class:`~gpuopt.optim.extras.Extras`.
:class:`Fused` is what a class for another rule derives from.
"""

from gpuopt.optim.adagrad import Adagrad
from gpuopt.optim.adam import Adam, AdamW
from gpuopt.optim.base import Fused
from gpuopt.optim.rmsprop import RMSprop
from gpuopt.optim.scaler import GradScaler
from gpuopt.optim.sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Fused", "GradScaler", "RMSprop"]
