/* A plugin of qemu-user 7.2 that counts the guest's instructions between two marks.

   A mark is the system call getpriority, which nothing else in a Python process makes: the first of two sets all counts
   to zero, the second writes them to FILE.0, FILE.1 and so on. Every line is one block of code: its address, its
   instructions, how many of these load or store (aarch64 only), and how often the block ran. One guest thread only: counts are not
   atomic.

   qemu's plugin interface is declared here, version 1, as Debian ships no header for it. */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef struct {
    const char *target_name;
    struct { int min, cur; } version;
    bool system_emulation;
    struct { int smp_vcpus, max_vcpus; } system;
} qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
typedef void (*on_translation)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*on_syscall)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t, uint64_t);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, on_translation);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, on_syscall);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

int qemu_plugin_version = 1;

typedef struct block {
    uint64_t address, instructions, memory, runs;
    struct block *next;
} block;

enum { BUCKETS = 1 << 16 };
static block *blocks[BUCKETS];
static const char *written_to;
static bool is_64_bit, counting;
static int64_t mark;
static unsigned written;

/* Of the 64-bit instruction set, where op0 = x1x0 are the loads and stores; not told apart in the 32-bit sets. */
static bool touches_memory(uint32_t code)
{
    return (code & 0x0A000000) == 0x08000000;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    uint64_t address = qemu_plugin_tb_vaddr(tb), instructions = qemu_plugin_tb_n_insns(tb);
    block **place = &blocks[(address >> 1) % BUCKETS];
    while (*place && ((*place)->address != address || (*place)->instructions != instructions))
        place = &(*place)->next;
    if (!*place) {
        *place = calloc(1, sizeof **place);
        (*place)->address = address;
        (*place)->instructions = instructions;
        for (size_t index = 0; is_64_bit && index < instructions; index++) {
            uint32_t code;
            memcpy(&code, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, index)), sizeof code);
            (*place)->memory += touches_memory(code);
        }
    }
    qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &(*place)->runs, 1);
}

static void called(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                   uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    if (number != mark)
        return;
    FILE *file = NULL;
    if (counting) {
        char name[4096];
        snprintf(name, sizeof name, "%s.%u", written_to, written++);
        file = fopen(name, "w");
    }
    for (size_t bucket = 0; bucket < BUCKETS; bucket++)
        for (block *each = blocks[bucket]; each; each = each->next) {
            if (file && each->runs)
                fprintf(file, "%llx %llu %llu %llu\n", (unsigned long long)each->address,
                        (unsigned long long)each->instructions, (unsigned long long)each->memory,
                        (unsigned long long)each->runs);
            each->runs = 0;
        }
    if (file)
        fclose(file);
    counting = !counting;
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    if (argc != 1 || strncmp(argv[0], "to=", 3)) {
        fprintf(stderr, "counting: expected to=FILE\n");
        return -1;
    }
    written_to = strdup(argv[0] + 3);
    is_64_bit = !strcmp(info->target_name, "aarch64");
    mark = is_64_bit ? 141 : 96; /* getpriority */
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
