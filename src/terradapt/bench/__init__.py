"""Efficiency on this machine.

``run``: the columns of ARAFNet's Table 4 for ten backbones on each engine, which needs torch;
``exported``: one exported model on each engine, with the base install alone.
"""
