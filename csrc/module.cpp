// The Python module ssl_kernels._C: importing it registers the schemas and CPU kernels; it also says how it was built.
#include <pybind11/pybind11.h>

#include <string>

#include "cpu/isa.h"

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info;
  info["torch_target"] = SSLK_TORCH_TARGET;  // the oldest torch this binary runs with
  info["torch_built"] = SSLK_TORCH_BUILT;    // the torch it was compiled against
  info["compiler"] = SSLK_COMPILER;
  info["cpu_isas"] = SSLK_CPU_ISAS;  // space separated
  info["cuda"] = SSLK_CUDA_VERSION;  // empty: built without nvcc
  info["cuda_architectures"] = SSLK_CUDA_ARCHS;
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native kernels of ssl-kernels: importing this module registers torch.ops.sslk.*";
  m.def("build_info", &build_info, "How this binary was built, as a dict of strings.");
  m.def("cpu_isa", [] { return sslk::isa_name(sslk::cpu_isa()); }, "The CPU build in use: baseline, avx2 or avx512.");
  m.def(
      "set_cpu_isa", [](const std::string& name) { sslk::set_cpu_isa(name.c_str()); }, py::arg("name"),
      "Use another CPU build from now on; raises ValueError if the machine or the build lacks it.");
}
