"""Triton kernels of the slowest steps of rendering, for inference on a GPU.

Each computes what a function in PyTorch computes, to rounding errors, without writing intermediate
tensors to memory. They are custom operators, which ``torch.compile`` and CUDA graphs accept.
"""
