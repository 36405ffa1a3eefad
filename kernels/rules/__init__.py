"""The registry of rules. To add an optimizer, write its file and name it here."""

from gpuopt.kernels.rules import adagrad, adam, rmsprop, sgd
from gpuopt.kernels.rules.rule import Relation, Rule

RULES: dict[str, Rule] = {module.RULE.name: module.RULE for module in (adam, rmsprop, sgd, adagrad)}

__all__ = ["RULES", "Relation", "Rule"]
