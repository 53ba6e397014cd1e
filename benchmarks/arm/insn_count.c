// A QEMU plugin that counts the instructions a program executes and writes the count to a file at exit:
//
//   qemu-aarch64 -plugin libinsn_count.so,out=FILE PROGRAM
//
// For programs of one thread. The declarations are those of plugin API 1 (include/qemu/qemu-plugin.h of QEMU 4.2 to 8.2), which
// distributions do not package; QEMU's static builds cannot load plugins.
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define QEMU_EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct qemu_info_t qemu_info_t;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, void (*translated)(qemu_plugin_id_t, struct qemu_plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, enum qemu_plugin_op op, void *at, uint64_t value);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*at_exit)(qemu_plugin_id_t, void *), void *data);

QEMU_EXPORT int qemu_plugin_version = 1;

static uint64_t count;
static FILE *out;

// Instruction by instruction and not by block: a block may be left half way.
static void count_block(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  (void)id;
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); ++i) {
    qemu_plugin_register_vcpu_insn_exec_inline(qemu_plugin_tb_get_insn(block, i), QEMU_PLUGIN_INLINE_ADD_U64, &count, 1);
  }
}

static void report(qemu_plugin_id_t id, void *data) {
  (void)id, (void)data;
  fprintf(out, "%" PRIu64 "\n", count);
  fclose(out);
}

QEMU_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
  (void)info;
  if (argc == 1 && strncmp(argv[0], "out=", 4) == 0) out = fopen(argv[0] + 4, "w");
  if (out == NULL) {
    fprintf(stderr, "insn_count: must be given out=FILE, a file that can be written\n");
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, count_block);
  qemu_plugin_register_atexit_cb(id, report, NULL);
  return 0;
}
