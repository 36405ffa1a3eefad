"""Every tolerance of the tests. What is not here is compared bit for bit."""

ACCURACY = {"fp32": {"param": 3.5e-5, "state": 1e-5, "elsewhere": 1e-5}}
"""Largest error after 1,000 steps, against float64 and relative to the root mean square of the slot, by format.

Set to four times what was measured over all rules in ``test_accuracy.py``: 8.7e-6 for parameters, 2.5e-6 for state.
For scale: 1,000 roundings of half a unit in the last place, all in one direction, make 6e-5.

Of a rule that is not continuous, ``elsewhere`` is the largest share of its steps that may take a parameter elsewhere. A
sum that is as accurate as state has the other sign only within 1e-5 of zero; a normal one is there 8e-6 of the time.
"""

NORM = 1e-13
"""Relative error of a sum of up to 6,000 squares in float64.

Every driver adds at least eight sums beside each other, so none takes more than 750 roundings of half a unit in the
last place: 8.4e-14.
"""

TORCH = {
    "float32": (2e-5, 2e-6),
    "float64": (1e-13, 1e-14),
    "bfloat16": (2**-7, 2**-133),
    "float16": (2**-10, 2**-24),
}
"""Relative and absolute tolerance against torch.optim after 50 steps, by dtype: some hundred units in the last place.

Where a root comes close to epsilon, one unit of difference in a moment grows by the condition of the quotient. In 16
bits it is one unit in the last place, after one step: what is computed in float32 may be rounded the other way.
"""
