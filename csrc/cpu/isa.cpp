// Chooses the CPU build at load: the best the machine has, or the one SSLK_CPU_ISA names.
#include "cpu/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace sslk {
namespace {

Isa best_available() {
#if defined(SSLK_MULTI_ISA)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    return Isa::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return Isa::avx2;
  }
#endif
  return Isa::baseline;
}

Isa parse(const std::string& name) {
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (name == isa_name(isa)) {
      if (static_cast<int>(isa) > static_cast<int>(best_available())) {
        throw std::invalid_argument("SSLK_CPU_ISA=" + name + " is not available: this machine and build have " +
                                    isa_name(best_available()) + " at most.");
      }
      return isa;
    }
  }
  throw std::invalid_argument("SSLK_CPU_ISA must be baseline, avx2 or avx512, got \"" + name + "\".");
}

Isa initial() {
  const char* forced = std::getenv("SSLK_CPU_ISA");
  return forced != nullptr && *forced != '\0' ? parse(forced) : best_available();
}

Isa& current() {
  static Isa isa = initial();
  return isa;
}

}  // namespace

Isa cpu_isa() { return current(); }

const char* isa_name(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "baseline"; }

void set_cpu_isa(const char* name) { current() = parse(name); }

}  // namespace sslk
