"""What the tests of simulated Triton kernels share."""

ARCHS = (80, 90, 100, 120)
CHECK = {"check_races": True, "check_uninit": True}


def close(a, b, tol):
    import torch

    a, b = (torch.as_tensor(x).double() for x in (a, b))
    assert torch.allclose(a, b, rtol=tol, atol=tol)
