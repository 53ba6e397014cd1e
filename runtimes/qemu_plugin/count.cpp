// A QEMU plugin that counts the instructions a program executes between marks (runner/count_mark.h), and writes the count to a
// file:
//
//   qemu-aarch64 -plugin libedgecomp_qemu_count.so,out=FILE PROGRAM
//
// Every second mark ends a count. For programs that run marked code on one thread. The declarations are those of plugin API 1
// (include/qemu/qemu-plugin.h of QEMU 4.2 to 8.2), which distributions do not package; QEMU's static builds cannot load plugins.
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>

#define QEMU_EXPORT extern "C" __attribute__((visibility("default")))

extern "C" {

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info_t;

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, void (*translated)(qemu_plugin_id_t, qemu_plugin_tb*));
size_t qemu_plugin_tb_n_insns(const qemu_plugin_tb* block);
qemu_plugin_insn* qemu_plugin_tb_get_insn(const qemu_plugin_tb* block, size_t index);
const void* qemu_plugin_insn_data(const qemu_plugin_insn* insn);
void qemu_plugin_register_vcpu_insn_exec_inline(qemu_plugin_insn* insn, int operation, void* at, uint64_t value);
void qemu_plugin_register_vcpu_insn_exec_cb(qemu_plugin_insn* insn, void (*executed)(unsigned, void*), int flags, void* data);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*at_exit)(qemu_plugin_id_t, void*), void* data);

}  // extern "C"

QEMU_EXPORT int qemu_plugin_version;
int qemu_plugin_version = 1;

namespace {

constexpr int kAddUint64 = 0;           // QEMU_PLUGIN_INLINE_ADD_U64
constexpr int kNoRegisters = 0;         // QEMU_PLUGIN_CB_NO_REGS
constexpr uint32_t kMark = 0xaa1b03fb;  // mov x27, x27

uint64_t executed = 0, begun = 0, counted = 0;
bool counting = false;
std::FILE* out = nullptr;

void Mark(unsigned, void*) {
  if (counting) {
    counted += executed - begun;
  } else {
    begun = executed;
  }
  counting = !counting;
}

// Instruction by instruction and not by block: a block may be left half way.
void CountBlock(qemu_plugin_id_t, qemu_plugin_tb* block) {
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); ++i) {
    qemu_plugin_insn* insn = qemu_plugin_tb_get_insn(block, i);
    qemu_plugin_register_vcpu_insn_exec_inline(insn, kAddUint64, &executed, 1);
    uint32_t word = 0;
    std::memcpy(&word, qemu_plugin_insn_data(insn), sizeof(word));
    if (word == kMark) qemu_plugin_register_vcpu_insn_exec_cb(insn, Mark, kNoRegisters, nullptr);
  }
}

void Report(qemu_plugin_id_t, void*) {
  std::fprintf(out, "%" PRIu64 "\n", counted);
  std::fclose(out);
}

}  // namespace

QEMU_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t*, int argc, char** argv) {
  if (argc == 1 && std::strncmp(argv[0], "out=", 4) == 0) out = std::fopen(argv[0] + 4, "w");
  if (out == nullptr) {
    std::fprintf(stderr, "edgecomp: the counting plugin must be given out=FILE, a file that can be written\n");
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, CountBlock);
  qemu_plugin_register_atexit_cb(id, Report, nullptr);
  return 0;
}
