"""CUDA C++ sources of the environments, compiled at run time for the GPU and ahead for the host."""
