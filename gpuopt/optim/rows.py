"""Which parameters a step is over: those that have a gradient, whose rows are made at their first step and stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import is_, itemgetter
from typing import Any

import torch

from gpuopt.optim.device import Device
from gpuopt.optim.member import Member, Recipe, member_of
from gpuopt.optim.processes import Processes
from gpuopt.optim.selection import Selection
from gpuopt.optim.shards import is_shard, lies_as, local, placed_grad
from gpuopt.optim.sparse import Sparse
from gpuopt.plan import Tensor
from gpuopt.watched import Entries, States, Touched

MOST_SELECTIONS = 16
"""Sets of parameters that are remembered, as those of a mixture of experts may come again or not."""

Groups = Sequence[dict[str, Any]]

_params_of = itemgetter("params")


class Rows:
    """The rows of an optimizer's parameters, and the selections of them that steps were over.

    Attributes:
        new: Those members whose state the optimizer has not been given yet.
        sparse: Parameters whose gradients are sparse, which the last selection leaves out.
        is_whole: Whether the last selection was of all parameters.
        processes: Those that hold the parameters together.
    """

    def __init__(self, groups: Groups, recipe: Recipe, states: States) -> None:
        """No rows yet, for the groups and the state of an optimizer."""
        self._groups, self._recipe, self._states = groups, recipe, states
        self._listed = list(chain.from_iterable(map(_params_of, groups)))
        places: dict[torch.Tensor, tuple[int, int]] = {}
        for group, each in enumerate(groups):
            for at, param in enumerate(each["params"]):
                places.setdefault(param, (group, at))  # of one that is listed twice, the first
        self._params, self._at = list(places), list(places.values())
        self._shards = [index for index, param in enumerate(self._params) if is_shard(param)]
        self.processes = Processes(self._params, recipe.norm_group)
        self._lengths = list(map(len, map(_params_of, groups)))
        self._conjugable = [param for param in self._params if recipe.zero_grads and param.is_complex()]
        self._members: list[Member | None] = [None] * len(self._params)
        self._devices: dict[torch.device, Device] = {}
        self._selections: dict[tuple[int, ...] | None, list[Selection]] = {}
        self.new: list[Member] = []
        self.sparse: list[Sparse] = []
        self.is_whole = False
        self._may_be_sparse: set[int] = set()
        self._touched = states.touched = Touched()

    def fit(self, groups: Groups, recipe: Recipe, states: Any) -> bool:
        """Whether they are of these parameters and of this state."""
        return (
            recipe == self._recipe
            and states is self._states
            and not self._touched.replaced
            and list(map(len, map(_params_of, groups))) == self._lengths
            and all(map(is_, chain.from_iterable(map(_params_of, groups)), self._listed))
        )

    def select(self, captured: bool) -> list[Selection]:
        """The parameters that have a dense gradient, by device, with their gradients taken.

        What is ``captured`` by a CUDA graph must have been selected outside of it before.

        Raises:
            TypeError, ValueError, RuntimeError: A tensor cannot be used, or no backend can run.
        """
        for param in self._conjugable:  # what is to be written must not be seen through a conjugation
            if param.grad is not None and param.grad.is_conj():
                param.grad = param.grad.resolve_conj()
        grads = self._own_grads()
        self.sparse = [self._take_sparse(index, grads) for index in self._may_be_sparse if _is_sparse(grads[index])]
        present = [grad for grad in grads if grad is not None]
        if not present:
            return []
        self.is_whole = len(present) == len(grads)
        stepped = None if self.is_whole else tuple([index for index, grad in enumerate(grads) if grad is not None])
        if self._touched.news:
            self._forget_touched()
        selections = self._selections.get(stepped)
        if selections is None or not _take(selections, present):
            if self._recipe.takes_sparse and any(map(_is_sparse, present)):
                self._may_be_sparse |= {index for index, grad in enumerate(grads) if _is_sparse(grad)}
                return self.select(captured)
            if captured:
                raise RuntimeError(
                    "a CUDA graph can capture step() only after one outside of the graph, with gradients for the same "
                    "parameters and of the same strides"
                )
            indices = range(len(grads)) if stepped is None else stepped
            selections = self._select_anew(indices, present)
            if len(self._selections) >= MOST_SELECTIONS:
                del self._selections[next(iter(self._selections))]
            self._selections[stepped] = selections
        return selections

    def bystanders(self) -> list[Member]:
        """Members that have originals, whose parameters nobody is known to have written to since.

        A step over some of them counts as a write to all that are views of the same memory.
        """
        return [m for m in self._members if m is not None and m.has_original and m.is_as_left]

    def keep_state(self) -> None:
        """Gives the optimizer the state of rows that are new."""
        for member in self.new:
            old = self._states.get(member.param)
            if isinstance(old, Entries):  # which others may hold
                member.state = old.become(member.state)
            if member.state:
                dict.__setitem__(self._states, member.param, member.state)
            else:
                dict.pop(self._states, member.param, None)
        self.new = []

    def _forget_touched(self) -> None:
        for index in self._touched.changed:
            self._members[index] = None
        self._touched.changed, self._touched.news = set(), False
        self._selections.clear()

    def _select_anew(self, indices: Sequence[int], grads: Sequence[torch.Tensor]) -> list[Selection]:
        """What no selection is kept for: rows are made where there are none, and anew where one does not hold."""
        by_index = dict(zip(indices, grads, strict=True))
        self._make({index: grad for index, grad in by_index.items() if self._members[index] is None})
        selections = self._combine(indices)
        if not _take(selections, grads):
            self._make({m.index: by_index[m.index] for m in self._some(indices) if not m.holds(by_index[m.index])})
            self._selections.clear()
            selections = self._combine(indices)
            if not _take(selections, grads):
                raise RuntimeError("a parameter, its gradient or its state was changed by another thread during a step")
        return selections

    def _own_grads(self) -> list[torch.Tensor | None]:
        """What is in this process of the gradient of each parameter."""
        grads = [param.grad for param in self._params]
        for index in self._shards:
            param, grad = self._params[index], grads[index]
            if grad is not None:
                grads[index] = local(grad if lies_as(grad, param) else placed_grad(param, self._name(index)))
        return grads

    def _make(self, grads: Mapping[int, torch.Tensor]) -> None:
        """Makes the rows of parameters, by their index, for these gradients."""
        by_device: dict[torch.device, list[Any]] = {}
        for index, grad in grads.items():
            by_device.setdefault(self._params[index].device, []).append(self._made(index, grad))
        for where, made in by_device.items():
            if where not in self._devices:
                self._devices[where] = Device(self._recipe, where, len(self._params))
            self._devices[where].put(made)
            for member, *_ in made:
                self._members[member.index] = member
                self.new.append(member)

    def _made(self, index: int, grad: torch.Tensor) -> tuple[Member, Tensor, Any]:
        group, param = self._at[index][0], self._params[index]
        given = self._states.get(param, {})
        member, tensor, count = member_of(
            self._recipe, index, group, self._name(index), param, grad, given, self._touched
        )
        return member, tensor._replace(part=self.processes.parts[index]), count

    def _name(self, index: int) -> str:
        group, at = self._at[index]
        names = self._groups[group].get("param_names")
        return f"{at} of group {group}" + (f" ({names[at]!r})" if names else "")

    def _take_sparse(self, index: int, grads: list[torch.Tensor | None]) -> Sparse:
        """A parameter that has a sparse gradient, which is taken out of ``grads``."""
        grads[index] = None
        return Sparse(self._name(index), self._groups[self._at[index][0]], self._params[index])

    def _some(self, indices: Iterable[int]) -> list[Member]:
        return [member for member in map(self._members.__getitem__, indices) if member is not None]

    def _combine(self, indices: Iterable[int]) -> list[Selection]:
        by_device: dict[torch.device, list[Member]] = {}
        for member in self._some(indices):
            by_device.setdefault(member.param.device, []).append(member)
        return [Selection(self._devices[where], own) for where, own in by_device.items()]


def _is_sparse(grad: torch.Tensor | None) -> bool:
    return grad is not None and grad.is_sparse


def _take(selections: Sequence[Selection], grads: Sequence[torch.Tensor]) -> bool:
    """Whether every selection takes its share of ``grads``, which are in the order of all parameters."""
    if len(selections) == 1:
        return selections[0].take(grads)
    return all(
        selection.take([grad for grad in grads if grad.device == selection.home.device]) for selection in selections
    )
