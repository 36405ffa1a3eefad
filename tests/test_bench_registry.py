"""The benchmark's registry is what it says.

- Models have the published numbers of parameters; scaled ones have as many tensors. Keys are unique, and goals are of
  workloads and contenders that exist. Bytes are those of the algorithm.
- A workload's data repeats a pool, and an outcome is held to the oracle's bit by bit, wherever in a tensor it differs.
- Every contender that can run here is right on every kind of workload, gpuopt to the bit; one that takes a wrong step
  is wrong, in every format. The naive code computes what the oracle computes, to rounding.
- Every step finds the gradients that its workload says: the same, new ones, or those of one part of the tensors, and
  then leaves the other tensors alone.
- Adapters to libraries that are not installed give their classes the settings that mean the workload.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from inspect import signature
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gpuopt import arrays, backends
from gpuopt.bench import goals
from gpuopt.bench.contenders import contenders, libraries
from gpuopt.bench.contenders import torch as torch_contenders
from gpuopt.bench.contenders.contender import TOLERANCE, Contender, Entrant
from gpuopt.bench.contenders.naive import NAIVE
from gpuopt.bench.contenders.torch import preparation, torch_params
from gpuopt.bench.optimizers import OPTIMIZERS
from gpuopt.bench.problem import FACTORS, POOL, REMAINDER, WARM_UP, Deviation, Problem, storage
from gpuopt.bench.shapes import MODELS, ONES, SCALED, SHAPES, Shapes, llama
from gpuopt.bench.workloads import (
    DECISIVE,
    EIGHT_BIT_SETS,
    FORMAT_SETS,
    GROUPS,
    JUDGED,
    TAILS,
    Workload,
    decides,
    workloads,
)
from gpuopt.plan import Plan

SETS = FORMAT_SETS | EIGHT_BIT_SETS

PUBLISHED = {
    "resnet-50": 25_557_032,
    "vit-l16": 304_326_632,
    "gpt2-124m": 124_439_808,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.1-8b": 8_030_261_248,
}
FEW = Shapes("few", "a few", ((50,), (7, 3), (1,), (4100,)))
HOST_DRIVERS = [name for name, why in backends.available().items() if why is None and name in ("numba", "numpy")]


@pytest.fixture(scope="module", autouse=True)
def _no_group_is_left() -> Iterator[None]:
    yield
    torch_contenders.leave_group()


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setitem(SHAPES, FEW.name, FEW)
    return partial(Workload, "rules", shapes_name=FEW.name)


def verdict(contender, workload):
    problem = Problem(workload, "cpu")
    entrant = contender.set_up(problem)
    for _ in problem.warm_ups():
        entrant.prepare()
        entrant.step()
    return contender.judge(workload, problem.deviation(entrant.outcome(), problem.expected()))


def spied(method, told):
    def call(*arguments, **options):
        told(*arguments)
        return method(*arguments, **options)

    return call


def same_bits(one, other):
    return torch.equal(one.detach().view(torch.int32), other.view(torch.int32))


# the registry


def test_models_have_the_published_numbers_of_parameters():
    assert {model.name: model.numel for model in MODELS} == PUBLISHED


def test_scaled_models_have_as_many_tensors_and_fewer_elements():
    by_name = {model.name: model for model in MODELS}
    for scaled in SCALED:
        model = by_name[scaled.name.partition("-width-")[0]]
        assert len(scaled.shapes) == len(model.shapes)
        assert scaled.numel < model.numel / 4


def test_embeddings_that_are_not_tied_count_twice():
    untied, tied = (sum(map(np.prod, llama(8, 2, 16, 1, 4, tied, 2, 100))) for tied in (False, True))
    assert untied - tied == 100 * 8


def test_single_tensors_go_from_2_to_the_10_to_2_to_the_30():
    assert (min(one.numel for one in ONES), max(one.numel for one in ONES)) == (1 << 10, 1 << 30)
    assert all(one.numel == 1 << int(one.name.removeprefix("one-")) for one in ONES)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_keys_are_unique_and_groups_have_titles(device):
    keys = [workload.key for workload in workloads(device)]
    assert len(keys) == len(set(keys))
    assert {workload.group for workload in workloads(device)} == set(GROUPS)
    assert set(JUDGED) <= set(workloads(device))
    assert workloads(device)[: len(decides(device))] == decides(device)


def test_a_gpu_has_the_models_in_full_and_a_cpu_has_not():
    on_gpu, on_cpu = ({workload.shapes_name for workload in workloads(device)} for device in ("cuda", "cpu"))
    assert set(PUBLISHED) <= on_gpu
    assert set(PUBLISHED) & on_cpu == {"resnet-50"}
    assert {shapes.name for shapes in SCALED} <= on_cpu


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_rule_format_and_tail_is_there(device):
    found = workloads(device)
    assert {workload.optimizer_name for workload in found} == set(OPTIMIZERS)
    assert {workload.formats_name for workload in found} == set(SETS)
    assert {workload.tail for workload in found} == {(), *TAILS}
    assert {"10000x1000", "1000x64", "200x100000"} <= {workload.shapes_name for workload in found}


def test_what_decides_on_a_gpu_is_every_rule_at_the_size_of_a_model():
    large = {(each.optimizer_name, each.formats_name) for each in DECISIVE if each.shapes_name == "llama-3.2-1b"}
    assert large == {(name, "fp32") for name in ("Adam", "RMSprop", "SGD", "Adagrad")} | {("Adam", "bf16")}
    assert {"10000x1000"} <= {each.shapes_name for each in DECISIVE}
    assert any(each.tail for each in DECISIVE)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "Adagrad"])
def test_a_fused_step_is_found_by_trying_it(name, monkeypatch):
    way = next(each for each in contenders("cpu") if each.name == "torch fused")
    workload = Workload("", name, "one-20m")
    assert torch_contenders.steps_fused(name, "cpu")
    assert way.refuses(workload) is None
    assert not torch_contenders.steps_fused("RMSprop", "cpu")
    monkeypatch.setattr(torch_contenders, "steps_fused", lambda name, device: False)
    assert way.refuses(workload) == f"torch.optim.{name} has none on cpu"


def test_goals_are_of_workloads_and_contenders_that_exist():
    names = {contender.name for contender in contenders("cpu")}
    assert len(goals.GOALS) == 14
    assert {goal.workload for goal in goals.GOALS} == {workload.key for workload in JUDGED}
    for goal in goals.GOALS:
        assert {goal.ours, *goal.theirs} <= names


@pytest.mark.parametrize(
    ("workload", "per_element"),
    [
        (Workload("", "Adam", "one-20m"), 28),
        (Workload("", "RMSprop", "one-20m"), 20),
        (Workload("", "SGD", "one-20m"), 20),
        (Workload("", "AdamW", "one-20m", "bf16-fp32-state"), 22),
        (Workload("", "AdamW", "one-20m", "bf16"), 14),
        (Workload("", "AdamW", "one-20m", "split32"), 26),
        (Workload("", "AdamW", "one-20m", "split24"), 24),
        (Workload("", "AdamW", "one-20m", "split24-stochastic-state"), 16),
        (Workload("", "AdamW", "one-20m", "stochastic-fp32-state"), 22),
        (Workload("", "AdamW", "one-20m", "stochastic"), 14),
        (Workload("", "AdamW", "one-20m", "8bit"), 16.125),
        (Workload("", "AdamW", "one-20m", "split24-8bit"), 12.125),
        (Workload("", "AdamW", "one-20m", "stochastic-8bit"), 10.125),
        (Workload("", "AdamW", "one-20m", tail=TAILS[0]), 36),
        (Workload("", "AdamW", "one-20m", tail=TAILS[1]), 40),
        (Workload("", "Adam", "one-20m", new_grads=True), 28),
        (Workload("", "Adam", "one-20m", parts=8), 3.5),
    ],
)
def test_bytes_are_those_of_the_algorithm(workload, per_element):
    assert workload.bytes == per_element * 20_000_000


@pytest.mark.parametrize(
    ("formats", "per_element"),
    [
        ("fp32", 12),
        ("bf16", 6),
        ("split32", 12),
        ("split24", 11),
        ("split24-stochastic-state", 7),
        ("stochastic", 6),
        ("8bit", 6.0625),
        ("split24-8bit", 5.0625),
        ("stochastic-8bit", 4.0625),
    ],
)
def test_what_is_stored_is_parameters_with_what_is_beside_them_and_state(formats, per_element):
    assert Workload("", "AdamW", "one-20m", formats).stored == per_element * 20_000_000


def test_workloads_of_the_same_tensors_are_told_apart():
    differences = ({}, {"new_grads": True}, {"parts": 8}, {"misaligned_grads": True}, {"sharded": True})
    kinds = [Workload("", "Adam", "experts-64x4x256", **kind) for kind in differences]
    keys = [kind.key.removeprefix("adam/experts-64x4x256/fp32") for kind in kinds]
    assert keys == ["", "/new-grads", "/1-of-8", "/misaligned-grads", "/sharded"]
    titles = [kind.title.removeprefix("Adam, 64 experts of 4 x 256") for kind in kinds]
    assert titles[:3] == ["", ", new gradients each step", ", 1/8 of them each step"]
    assert titles[3:] == [", misaligned gradients", ", as DTensors"]


@pytest.mark.parametrize("elsewhere", [{"front": "arrays"}, {"tail": TAILS[0]}], ids=str)
@pytest.mark.parametrize("kind", [{"new_grads": True}, {"parts": 2}], ids=str)
def test_gradients_change_for_torch_without_a_tail_alone(elsewhere, kind):
    with pytest.raises(ValueError, match="new_grads and parts are for the front end for torch without a tail"):
        Workload("", "Adam", "one-10", **elsewhere, **kind)


@pytest.mark.parametrize("other", [{"front": "arrays"}, {"new_grads": True}], ids=str)
def test_misaligned_gradients_are_for_torch_and_the_same_in_all_steps(other):
    with pytest.raises(ValueError, match="misaligned_grads are for the front end for torch without new_grads"):
        Workload("", "Adam", "one-10", misaligned_grads=True, **other)


def test_shards_are_for_torch():
    with pytest.raises(ValueError, match="sharded is for the front end for torch"):
        Workload("", "Adam", "one-10", sharded=True, front="arrays")


def test_misaligned_gradients_are_one_element_off(few):
    problem = Problem(few(optimizer_name="Adam", misaligned_grads=True), "cpu")
    assert {grad.data_ptr() % 16 for grad in problem.grads} == {4}
    assert {param.data_ptr() % 16 for param in problem.params()} == {0}


def test_steps_on_small_tensors_are_as_many_as_fit_into_a_turn():
    by_key = {workload.key: workload for workload in workloads("cpu")}
    assert by_key["adam/one-10/fp32"].steps_per_turn > by_key["adam/one-20/fp32"].steps_per_turn
    experts = next(workload for workload in JUDGED if workload.parts > 1)
    assert experts.steps_per_turn % experts.parts == 0


# the data and the verdict


def test_tensors_repeat_the_pool_one_after_the_other(monkeypatch):
    monkeypatch.setitem(SHAPES, "long", Shapes("long", "", ((700_000,), (2, 900_000), (5,))))
    problem = Problem(Workload("", "Adam", "long"), "cpu")
    flat = torch.cat([param.flatten() for param in problem.params()])
    assert torch.equal(flat[:POOL], problem._params)
    assert torch.equal(flat[POOL : 2 * POOL], problem._params)
    assert torch.equal(flat[2 * POOL :], problem._params[: 2_500_005 - 2 * POOL])
    squares = sum(float(grad.double().square().sum()) for grad in problem.grads)
    assert problem.max_norm == pytest.approx(0.5 * squares**0.5, rel=1e-9)


@pytest.mark.parametrize("front", ["torch", "arrays"])
@pytest.mark.parametrize("index", [0, 1_000_002, 1_000_003, 2_400_000])
def test_one_wrong_element_anywhere_is_found(front, index, monkeypatch):
    monkeypatch.setitem(SHAPES, "long", Shapes("long", "", ((700_000,), (1_800_001,))))
    workload = Workload("", "Adam", "long", front=front)
    problem = Problem(workload, "cpu")
    wanted = {"param": problem._params}
    params = problem.params()
    assert problem.deviation({"param": params}, wanted).exact
    first = len(params[0])
    tensor, at = (params[0], index) if index < first else (params[1], index - first)
    kept = float(tensor[at])
    tensor[at] = float(np.nextafter(np.float32(kept), np.float32(9)))
    found = problem.deviation({"param": params}, wanted)
    assert not found.exact
    assert 0 < found.units <= 1
    tensor[at] = float("nan")
    assert problem.deviation({"param": params}, wanted).units == float("inf")


def test_zeros_of_different_signs_have_different_bits(few):
    problem = Problem(few(optimizer_name="Adam"), "cpu")
    params = [torch.full_like(param, -0.0) for param in problem.params()]
    assert not problem.deviation({"param": params}, {"param": torch.zeros_like(problem._params)}).exact


@pytest.mark.parametrize(
    ("contender", "found", "status"),
    [
        ({"bits": True}, Deviation(True, 0, 0), "exact"),
        ({"bits": True}, Deviation(False, 1, 0), "wrong"),
        ({}, Deviation(True, 0, 0), "exact"),
        ({}, Deviation(False, TOLERANCE["float32"], 9), "close"),
        ({}, Deviation(False, TOLERANCE["float32"] + 1, 0), "wrong"),
        ({}, Deviation(False, float("inf"), 0), "wrong"),
        ({"coarse": 0.1}, Deviation(False, 1e6, 0.1), "close"),
        ({"coarse": 0.1}, Deviation(False, 0, 0.11), "wrong"),
        ({"coarse": 0.1}, Deviation(False, 0, float("nan")), "wrong"),
    ],
)
def test_verdict_follows_from_the_deviation(contender, found, status):
    given, why = Contender("x", "cpu", lambda problem: Entrant(lambda: None, dict), **contender).judge(
        Workload("", "Adam", "one-10"), found
    )
    assert given == status
    assert (why is None) == (status in ("exact", "close"))


def test_bits_may_differ_where_gradients_are_clipped():
    ours = Contender("x", "cpu", lambda problem: Entrant(lambda: None, dict), bits=True)
    assert ours.judge(Workload("", "AdamW", "one-10", tail=TAILS[0]), Deviation(False, 2, 0))[0] == "close"


# contenders

KINDS = [
    *({"optimizer_name": name} for name in OPTIMIZERS),
    *({"optimizer_name": name, "front": "arrays"} for name in ("Adam", "AdamW", "RMSprop")),
    *({"optimizer_name": "AdamW", "formats_name": formats} for formats in SETS if formats != "fp32"),
    *({"optimizer_name": "AdamW", "tail": tail} for tail in TAILS),
    {"optimizer_name": "Adam", "new_grads": True},
    {"optimizer_name": "Adam", "parts": 3},
    {"optimizer_name": "Adam", "misaligned_grads": True},
    {"optimizer_name": "AdamW", "sharded": True},
    {"optimizer_name": "Adam", "formats_name": "stochastic", "parts": 3},
]


USED = ("optimizer", "formats", "front", "tail", "shapes", "new_grads", "parts", "misaligned_grads", "sharded")
"""What contenders see of a workload besides the learning rate."""


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_contender_is_right(kind, few):
    workload = few(**kind)
    taking_part = [
        each for each in contenders("cpu") if not each.slow and not each.absent() and not each.refuses(workload)
    ]
    assert {f"gpuopt {driver}" for driver in HOST_DRIVERS} <= {each.name for each in taking_part}
    for contender in taking_part:
        status, why = verdict(contender, workload)
        assert status in ("exact", "close"), (contender.name, why)
        if contender.bits and not workload.tail:
            assert status == "exact"


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_contender_with_another_learning_rate_is_wrong(kind, few, monkeypatch):
    workload = few(**kind)
    for contender in contenders("cpu"):
        if contender.slow or contender.absent() or contender.refuses(workload):
            continue
        problem = Problem(workload, "cpu")
        expected = problem.expected()
        problem.workload = SimpleNamespace(
            **{name: getattr(workload, name) for name in USED},
            lr=1.1 * workload.lr,
        )
        entrant = contender.set_up(problem)
        for _ in problem.warm_ups():
            entrant.prepare()
            entrant.step()
        status, why = contender.judge(workload, problem.deviation(entrant.outcome(), expected))
        assert status == "wrong", contender.name
        assert "units in the last place" in why


@pytest.mark.parametrize("formats", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("optimizer_name", "settings"),
    [("Adam", {"betas": (0.5, 0.5)}), ("Adam", {"betas": (0.0, 0.0)}), ("AdamW", {"weight_decay": 0.0})],
    ids=["other betas", "no state", "no decay"],
)
def test_other_arithmetic_is_wrong(optimizer_name, settings, formats, few):
    workload = few(optimizer_name=optimizer_name, formats_name=formats)
    problem = Problem(workload, "cpu")
    (theirs,) = (each for each in contenders("cpu") if each.name == "torch for-loop")
    entrant = theirs.set_up(problem)
    optimizer = entrant.step.__self__
    optimizer.param_groups[0].update(settings)
    for _ in problem.warm_ups():
        entrant.step()
    assert theirs.judge(workload, problem.deviation(entrant.outcome(), problem.expected()))[0] == "wrong"


def test_tail_that_leaves_gradients_is_wrong(few):
    workload = few(optimizer_name="AdamW", tail=TAILS[1])
    problem = Problem(workload, "cpu")
    (ours,) = (each for each in contenders("cpu") if each.name == "gpuopt numpy")
    entrant = ours.set_up(problem)
    for _ in problem.warm_ups():
        entrant.prepare()
        entrant.step()
    outcome = dict(entrant.outcome())
    assert all(not grad.any() for grad in outcome["grad"])
    outcome["grad"] = problem.grads
    assert ours.judge(workload, problem.deviation(outcome, problem.expected()))[0] == "wrong"


@pytest.mark.parametrize("formats", SETS)
def test_what_is_launched_is_stored_as_the_workload_says(formats, few, monkeypatch):
    launched = []
    monkeypatch.setattr(Plan, "__init__", spied(Plan.__init__, lambda plan, *_: launched.append(plan)))
    workload = few(optimizer_name="AdamW", formats_name=formats)
    (ours,) = (each for each in contenders("cpu") if each.name == "gpuopt numpy")
    ours.set_up(Problem(workload, "cpu")).step()
    assert [plan.variants for plan in launched] == [[workload.variant]]


@pytest.mark.parametrize("formats", [name for name, stored in SETS.items() if stored.param.startswith("split")])
def test_remainder_that_is_off_by_one_is_wrong(formats, few):
    workload = few(optimizer_name="AdamW", formats_name=formats)
    problem = Problem(workload, "cpu")
    (ours,) = (each for each in contenders("cpu") if each.name == "gpuopt numpy")
    entrant = ours.set_up(problem)
    for _ in problem.warm_ups():
        entrant.step()
    outcome, expected = entrant.outcome(), problem.expected()
    assert problem.deviation(outcome, expected).exact
    outcome[REMAINDER][-1][7] ^= 1
    assert problem.deviation(outcome, expected)[:2] == (False, 1.0)


@pytest.mark.parametrize(
    "formats", [name for name, stored in SETS.items() if "stochastic" in name or stored.state == "8bit"]
)
def test_other_random_bits_are_wrong(formats, few, monkeypatch):
    monkeypatch.setattr("gpuopt.bench.contenders.ours.storage", lambda formats: {**storage(formats), "seed": 1})
    workload = few(optimizer_name="AdamW", formats_name=formats)
    problem = Problem(workload, "cpu")
    (ours,) = (each for each in contenders("cpu") if each.name == "gpuopt numpy")
    entrant = ours.set_up(problem)
    for _ in problem.warm_ups():
        entrant.step()
    assert ours.judge(workload, problem.deviation(entrant.outcome(), problem.expected()))[0] == "wrong"


def test_every_compiled_step_is_compiled_anew(few, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: calls.append("reset"))
    monkeypatch.setattr(torch, "compile", lambda step: calls.append("compile") or step)
    (compiled,) = (each for each in contenders("cpu") if each.name == "torch compiled")
    for _ in range(2):
        compiled.set_up(Problem(few(optimizer_name="Adam"), "cpu"))
    assert calls == ["reset", "compile"] * 2


def test_what_torch_has_not_is_said(few):
    by_name = {each.name: each for each in contenders("cpu")}
    assert "has none" in by_name["torch fused"].refuses(few(optimizer_name="RMSprop"))
    mixed = few(optimizer_name="Adam", formats_name="bf16-fp32-state")
    assert "keeps state in its parameter's dtype" in by_name["torch foreach"].refuses(mixed)
    for formats in ("split32", "split24", "stochastic"):
        theirs = few(optimizer_name="AdamW", formats_name=formats)
        for way in ("fused", "foreach", "for-loop"):
            assert by_name[f"torch {way}"].refuses(theirs) == "torch.optim keeps no remainder and rounds to nearest"
    for formats in EIGHT_BIT_SETS:
        theirs = few(optimizer_name="AdamW", formats_name=formats)
        assert by_name["torch fused"].refuses(theirs) == "torch.optim keeps no state in 8 bits"
    assert "takes too long" in by_name["torch compiled"].refuses(few(optimizer_name="Adam"))
    in_parts = few(optimizer_name="Adam", parts=2)
    assert by_name["torch compiled"].refuses(in_parts) == (
        "it compiles the step anew for each set of tensors that have gradients"
    )
    assert [by_name[f"torch {way}"].refuses(in_parts) for way in torch_contenders.WAYS] == [None] * 3
    many = Workload("", "Adam", "10000x1000")
    assert by_name["torch for-loop"].refuses(many) is None
    assert torch_contenders._refuses({"foreach": False}, "cuda", many) == (
        "it takes 1,000 tensors at most here, but there are 10,000"
    )
    assert torch_contenders._refuses({"foreach": True}, "cuda", many) is None


def test_absent_torch_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr("gpuopt.bench.contenders.torch.find_spec", lambda name: None)
    monkeypatch.setattr("gpuopt.bench.contenders.ours.find_spec", lambda name: None)
    by_name = {each.name: each for each in contenders("cpu")}
    for way in ("fused", "foreach", "for-loop", "compiled"):
        assert "pip install 'gpuopt[torch]'" in by_name[f"torch {way}"].absent()
    assert "pip install 'gpuopt[torch]'" in by_name["gpuopt numpy"].refuses(JUDGED[-1])
    assert by_name["gpuopt numpy"].refuses(JUDGED[0]) is None


@pytest.mark.parametrize("name", sorted(NAIVE))
@pytest.mark.parametrize("backend", HOST_DRIVERS)
def test_naive_code_computes_what_the_oracle_does(name, backend):
    function, slots = NAIVE[name]
    rng = np.random.default_rng(3)
    p = rng.standard_normal(257)
    theirs = {"p": p.copy()}
    kind = getattr(arrays, name)
    plain = {"epsilon_hat": False} if "epsilon_hat" in kind.settings else {}
    eps = {"eps": 1e-8} if "eps" in kind.settings else {}
    optimizer = kind(lr=0.01, backend=backend, **plain, **eps)
    state = {slot: np.zeros_like(p) for slot in slots}
    for step in range(1, 6):
        g = rng.standard_normal(257)
        function(p, g, state, step, 0.01)
        optimizer.update(theirs, {"p": g})
    np.testing.assert_allclose(p, theirs["p"], rtol=0, atol=1e-13)  # some 5 x 10 roundings of values below 4


def test_there_is_naive_code_for_every_optimizer():
    kinds = {name for name in arrays.__all__ if isinstance(getattr(arrays, name), type)} - {"Optimizer"}
    assert set(NAIVE) == kinds
    for function, _ in NAIVE.values():
        assert list(signature(function).parameters)[:4] == ["p", "g", "state", "step"]


# other libraries


def torch_class(name):
    """An optimizer that takes a library's arguments for one of torch's."""

    def make(params, lr, adam_w_mode=None, adamw_mode=None, weight_decay=0.0, **settings):
        for flag in ("quantize", "master_weight_bits", "foreach"):
            settings.pop(flag, None)
        decoupled = adam_w_mode or adamw_mode or "AdamW" in name
        if decoupled:
            return torch.optim.AdamW(params, lr, weight_decay=weight_decay, **settings)
        kind = next(kind for kind in ("Adam", "SGD", "RMSprop", "Adagrad") if kind.lower() in name.lower())
        if kind == "Adam" and not decoupled:
            assert weight_decay == 0
        return getattr(torch.optim, kind)(params, lr, **settings)

    return make


@pytest.mark.parametrize("library", libraries.LIBRARIES, ids=lambda library: library.name)
def test_library_is_given_settings_that_mean_the_workload(library, few, monkeypatch):
    names = {name for name, _ in library.classes.values()}
    monkeypatch.setitem(sys.modules, library.module, SimpleNamespace(**{name: torch_class(name) for name in names}))
    for optimizer in library.classes:
        workload = few(optimizer_name=optimizer)
        contender = Contender(
            library.name, "cpu", partial(libraries._set_up, library), coarse=library.coarse, guest=True
        )
        assert libraries._refuses(library, workload) is None
        assert verdict(contender, workload)[0] in ("exact", "close")


def test_library_says_what_it_has_not(few):
    by_name = {library.name: partial(libraries._refuses, library) for library in libraries.LIBRARIES}
    assert "has no RMSprop" in by_name["optimi"](few(optimizer_name="RMSprop"))
    assert "does not store bf16" in by_name["optimi"](few(optimizer_name="Adam", formats_name="bf16"))
    assert "tail" in by_name["Apex"](few(optimizer_name="AdamW", tail=TAILS[0]))
    assert "PyTorch" in by_name["Apex"](few(optimizer_name="Adam", front="arrays"))


def test_library_is_absent_until_it_is_installed(monkeypatch):
    found = {each.name: each for each in contenders("cpu")}
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    assert found["optimi"].absent() == "torch-optimi is not installed"
    monkeypatch.setattr(libraries, "find_spec", lambda name: object())
    assert found["optimi"].absent() is None
    assert "Apex" not in found
    assert "DeepSpeed" not in {each.name for each in contenders("cuda")}


def test_gradients_are_shared_unless_the_step_writes_them(few):
    plain, tail = (Problem(few(optimizer_name="AdamW", tail=tail), "cpu") for tail in ((), TAILS[1]))
    assert torch_params(plain)[0].grad is plain.grads[0]
    assert torch_params(tail)[0].grad is not tail.grads[0]


# gradients that change between steps


def test_gradients_stay_the_same_ones_unless_the_workload_says_otherwise(few):
    problem = Problem(few(optimizer_name="Adam"), "cpu")
    params = torch_params(problem)
    preparation(problem, params)()
    assert all(param.grad is grad for param, grad in zip(params, problem.grads, strict=True))


def test_new_gradients_are_new_in_each_step_and_have_its_values(few):
    problem = Problem(few(optimizer_name="Adam", new_grads=True), "cpu")
    params = torch_params(problem)
    prepare, seen = preparation(problem, params), list(problem.grads)
    first = [grad.clone() for grad in problem.grads]
    for factor, _ in zip(FACTORS, problem.warm_ups(), strict=True):
        prepare()
        now = [param.grad for param in params]
        assert not {grad.data_ptr() for grad in now} & {grad.data_ptr() for grad in seen}
        assert all(torch.equal(grad, factor * begun) for grad, begun in zip(now, first, strict=True))
        seen += now


def test_parts_take_turns_at_having_their_gradients():
    problem = Problem(Workload("", "Adam", "experts-64x4x256", parts=8), "cpu")
    params = torch_params(problem)
    prepare = preparation(problem, params)
    for step in range(19):
        prepare()
        found = {index: param.grad for index, param in enumerate(params) if param.grad is not None}
        assert list(found) == list(range(step % 8 * 32, step % 8 * 32 + 32))
        assert all(grad is problem.grads[index] for index, grad in found.items())


def test_tensors_without_a_gradient_are_left_alone_and_all_have_as_many_turns(few):
    workload = few(optimizer_name="Adam", parts=3)
    taking_part = [
        each for each in contenders("cpu") if not each.slow and not each.absent() and not each.refuses(workload)
    ]
    for contender in taking_part:
        problem = Problem(workload, "cpu")
        entrant, begun = contender.set_up(problem), problem.params()
        for step, _ in enumerate(problem.warm_ups()):
            before = [param.clone() for param in entrant.outcome()["param"]]
            entrant.prepare()
            entrant.step()
            after = entrant.outcome()["param"]
            same = [same_bits(one, other) for one, other in zip(after, before, strict=True)]
            assert same == [[False, True, True, True], [True, False, True, True], [True, True, False, False]][step % 3]
            if step == 1:
                assert all(same_bits(one, other) for one, other in zip(after[2:], begun[2:], strict=True))
        assert step + 1 == 3 * WARM_UP


WRONG_TENSORS = {
    "all": lambda given, grads: grads,
    "all, some by zeros": lambda given, grads: [
        torch.zeros_like(grad) if own is None else own for own, grad in zip(given[-1], grads, strict=True)
    ],
    "always the first part": lambda given, grads: given[0],
    "the part before": lambda given, grads: given[max(len(given) - 2, 0)],
    "none, once": lambda given, grads: [None] * len(grads) if len(given) == 5 else given[-1],
}
"""The gradients that a step takes, of those that it and the steps before were given and those of all tensors."""


@pytest.mark.parametrize("wrong", WRONG_TENSORS)
def test_step_on_other_tensors_than_those_with_gradients_is_wrong(wrong, few):
    workload = few(optimizer_name="Adam", parts=3)
    problem = Problem(workload, "cpu")
    (theirs,) = (each for each in contenders("cpu") if each.name == "torch fused")
    entrant, given = theirs.set_up(problem), []
    params = entrant.step.__self__.param_groups[0]["params"]
    for _ in problem.warm_ups():
        entrant.prepare()
        given.append([param.grad for param in params])
        for param, grad in zip(params, WRONG_TENSORS[wrong](given, problem.grads), strict=True):
            param.grad = grad
        entrant.step()
    assert theirs.judge(workload, problem.deviation(entrant.outcome(), problem.expected()))[0] == "wrong"
