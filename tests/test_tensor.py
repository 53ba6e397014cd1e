from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from edgecomp.errors import CheckpointError
from edgecomp.tensor import ConvParams, LayerPlan, Stage

CONV = ConvParams(6, (3, 1), (2, 2), (1, 0, 2, 0), (1, 2), groups=2)
PLAN = LayerPlan(((Stage("basis", "linear"), Stage("coefficients", "linear")), (Stage("kernel", "conv", CONV),)), "fc.bias")


def test_a_plan_survives_json() -> None:
    assert LayerPlan.from_json(json.loads(json.dumps(PLAN.to_json()))) == PLAN
    bare = LayerPlan(((Stage("table", "gather"),),))
    assert LayerPlan.from_json(json.loads(json.dumps(bare.to_json()))) == bare


def changed(path: list[str | int], value: Any) -> dict[str, Any]:
    """The plan as JSON with one entry replaced, or removed where the value is `...`."""
    plan = copy.deepcopy(json.loads(json.dumps(PLAN.to_json())))
    *parents, last = path
    target: Any = plan
    for key in parents:
        target = target[key]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return plan


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["terms"], []),
        (["terms"], ...),
        (["terms"], 3),
        (["terms", 0], []),
        (["bias"], ...),
        (["bias"], 3),
        (["terms", 0, 0, "op"], "matmul"),
        (["terms", 0, 0, "op"], ["linear"]),
        (["terms", 0, 0, "factor"], 7),
        (["terms", 0, 0, "factor"], ...),
        (["terms", 0, 0, "conv"], {"in_channels": 3}),
        (["terms", 1, 0, "conv"], None),
        (["terms", 1, 0, "conv", "groups"], "two"),
        (["terms", 1, 0, "conv", "padding"], ...),
        (["terms", 1, 0, "conv", "padding"], [1, 1]),
        (["terms", 1, 0, "conv", "kernel_size"], [3, 3, 3]),
        (["terms", 1, 0, "conv", "stride"], [0, 1]),
        (["terms", 1, 0, "conv", "groups"], 0),
        (["terms", 1, 0, "conv", "groups"], 4),
    ],
    ids=str,
)
def test_plans_that_break_the_rules_are_refused(path: list[str | int], value: Any) -> None:
    with pytest.raises(CheckpointError, match="plan"):
        LayerPlan.from_json(changed(path, value))
