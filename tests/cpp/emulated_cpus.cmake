# The tests on emulated CPUs. An instruction that a CPU lacks ends the program, so that passing shows that dispatch kept away from
# it; each CPU must select the variant named here, and refuse those that it cannot run.
function(add_cpu cpu selected)
  cmake_parse_arguments(PARSE_ARGV 2 CPU "" "" "RUNS;REFUSES")
  add_test(NAME ${cpu}.kernels COMMAND edgecomp_tests)
  add_test(NAME ${cpu}.selects-${selected} COMMAND edgecomp_tests --selects ${selected})
  set_tests_properties(${cpu}.kernels ${cpu}.selects-${selected} PROPERTIES ENVIRONMENT "QEMU_CPU=${cpu}")
  foreach(variant IN LISTS CPU_RUNS)
    add_test(NAME ${cpu}.forced-${variant} COMMAND edgecomp_tests --selects ${variant})
    set_tests_properties(${cpu}.forced-${variant} PROPERTIES ENVIRONMENT "QEMU_CPU=${cpu};EDGECOMP_FORCE_ISA=${variant}")
  endforeach()
  foreach(variant IN LISTS CPU_REFUSES)
    add_test(NAME ${cpu}.refuses-${variant} COMMAND edgecomp_tests --selects ${variant})
    set_tests_properties(${cpu}.refuses-${variant} PROPERTIES
      ENVIRONMENT "QEMU_CPU=${cpu};EDGECOMP_FORCE_ISA=${variant}"
      PASS_REGULAR_EXPRESSION "must name a kernel variant that this CPU can run")
  endforeach()
  add_test(NAME ${cpu}.refuses-avx2 COMMAND edgecomp_tests --selects avx2)
  set_tests_properties(${cpu}.refuses-avx2 PROPERTIES
    ENVIRONMENT "QEMU_CPU=${cpu};EDGECOMP_FORCE_ISA=avx2"
    PASS_REGULAR_EXPRESSION "must name a kernel variant of this build")
endfunction()

add_cpu(cortex-a53 neon RUNS ref REFUSES neon_dotprod neon_i8mm)  # Raspberry Pi 3
add_cpu(cortex-a72 neon RUNS ref REFUSES neon_dotprod neon_i8mm)  # Raspberry Pi 4
add_cpu(cortex-a76 neon_dotprod RUNS neon ref REFUSES neon_i8mm)  # Raspberry Pi 5
add_cpu(max neon_i8mm RUNS neon_dotprod neon ref)            # everything that QEMU knows
