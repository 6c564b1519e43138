"""Triton kernels. They import torch, triton and their own siblings, nothing else of the project."""
