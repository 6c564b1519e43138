#include <pybind11/pybind11.h>

PYBIND11_MODULE(_host, module) { module.doc() = "Host build of the CUDA environment sources."; }
