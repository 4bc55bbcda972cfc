"""What a step computes, in functions that are one or two kernels each, in two forms.

In torch (a few lines: on a CPU, for training, where Triton does not run; what the golden data verify) and in Triton (on
a GPU: a step of the released model is 692 launches in place of 2181, and weights and window are read once). The layers
call the function and do not know which form runs: see ``form.fused``.
"""
