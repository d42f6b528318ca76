// Which build of the CPU kernels runs. Each */kernels.cpp is compiled once per instruction set, in a namespace of
// that name, from the same portable source; the choice is made when the library is loaded.
#pragma once

namespace sslk {

enum class Isa { baseline, avx2, avx512 };

Isa cpu_isa();
const char* isa_name(Isa isa);
// Picks another build for all later calls (tests and benchmarks); an unknown or unavailable name is an error.
void set_cpu_isa(const char* name);

}  // namespace sslk

#if defined(SSLK_MULTI_ISA)
#define SSLK_DECLARE_KERNEL(name, ...) \
  namespace baseline {                 \
  void name(__VA_ARGS__);              \
  }                                    \
  namespace avx2 {                     \
  void name(__VA_ARGS__);              \
  }                                    \
  namespace avx512 {                   \
  void name(__VA_ARGS__);              \
  }
#define SSLK_KERNEL(name)                                           \
  (::sslk::cpu_isa() == ::sslk::Isa::avx512 ? &::sslk::avx512::name \
   : ::sslk::cpu_isa() == ::sslk::Isa::avx2 ? &::sslk::avx2::name   \
                                            : &::sslk::baseline::name)
#else
#define SSLK_DECLARE_KERNEL(name, ...) \
  namespace baseline {                 \
  void name(__VA_ARGS__);              \
  }
#define SSLK_KERNEL(name) (&::sslk::baseline::name)
#endif
