"""A pretended GPU: PyTorch's own CUDA build over a CUDA runtime whose kernels do nothing.

`build.environment()` returns the variables that make a process see an H100 that is not there. What
is real then: device and dtype checks, autograd's device threads, streams, allocators (so peak
memory), pinned memory, the call sites of cuBLAS, cuDNN and NCCL, and every call that makes the host
wait. What is not: the numbers, unless `computing.Computing` fills them in. See docs/testing.md.
"""
