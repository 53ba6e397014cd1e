// Hides AVX-512, AVX-VNNI and AMX, or AMX alone, from all that a process loads, so that a peer's kernels for lesser processors can
// be timed on an Intel processor that has more (ours can be chosen by EDGECOMP_FORCE_ISA, a peer's mostly cannot). Linux, where
// `cpuid_fault` is in /proc/cpuinfo: CPUID then faults, and the handler answers in its place. The C library has looked before.
//
//     gcc -O2 -shared -fPIC benchmarks/hide_cpu_features.c -o hide_cpu_features.so
//     HIDE=avx512 LD_PRELOAD=./hide_cpu_features.so python benchmarks/encoder_latency.py ...      (or HIDE=amx)
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(n) (UINT32_C(1) << (n))

static int amx_alone;

// Of this thread; threads that it starts inherit it.
static long let_cpuid_run(int allowed) {
  const long set_cpuid = 0x1012;  // ARCH_SET_CPUID
  return syscall(SYS_arch_prctl, set_cpuid, (unsigned long)allowed);
}

static void answer_cpuid(int signal_number, siginfo_t* info, void* context) {
  (void)info;
  greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
  const uint8_t* instruction = (const uint8_t*)registers[REG_RIP];
  if (instruction[0] != 0x0f || instruction[1] != 0xa2) {  // another fault: end as without us
    signal(signal_number, SIG_DFL);
    return;
  }
  const uint32_t leaf = (uint32_t)registers[REG_RAX], subleaf = (uint32_t)registers[REG_RCX];
  uint32_t a, b, c, d;
  let_cpuid_run(1);
  __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(subleaf));
  let_cpuid_run(0);
  if (leaf == 7 && subleaf == 0) {
    d &= ~(BIT(22) | BIT(24) | BIT(25));  // AMX
    if (!amx_alone) {
      b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));  // AVX-512 F to VL
      c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));                                  // VBMI, VNNI and others of AVX-512
      d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(23));                                             // and more
    }
  } else if (leaf == 7 && subleaf == 1) {
    a &= ~BIT(21);  // AMX of float16
    d &= ~BIT(8);   // AMX of complex numbers
    if (!amx_alone) {
      a &= ~(BIT(4) | BIT(5) | BIT(23));            // AVX-VNNI, AVX-512 of bfloat16, AVX-IFMA
      d &= ~(BIT(4) | BIT(5) | BIT(10) | BIT(19));  // more of AVX-VNNI, AVX10
    }
  }
  registers[REG_RAX] = a;
  registers[REG_RBX] = b;
  registers[REG_RCX] = c;
  registers[REG_RDX] = d;
  registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void hide(void) {
  const char* what = getenv("HIDE");
  if (what == NULL || (strcmp(what, "amx") != 0 && strcmp(what, "avx512") != 0)) {
    fputs("hide_cpu_features: HIDE must be amx or avx512\n", stderr);
    exit(1);
  }
  amx_alone = strcmp(what, "amx") == 0;
  struct sigaction action = {0};
  action.sa_sigaction = answer_cpuid;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  if (sigaction(SIGSEGV, &action, NULL) != 0 || let_cpuid_run(0) != 0) {
    fputs("hide_cpu_features: this processor or kernel cannot make CPUID fault; nothing is hidden\n", stderr);
    exit(1);
  }
}
