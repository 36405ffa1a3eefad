"""The device side and its oracle: rules, formats and the drivers that run them.

Nothing here knows of optimizers, parameter groups or ``torch.optim``.
"""
