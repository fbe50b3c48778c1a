// mptable.c: the MP configuration table (MultiProcessor Specification 1.4, chapter 4), which older
// kernels read instead of ACPI.

#include "pc.h"

// Where the floating pointer may be: at the end of conventional memory, or in the BIOS.
#define BASE_MEMORY_END 0xa0000
#define BIOS_START 0xf0000
#define BIOS_END 0x100000

struct pointer {
    char signature[4];
    uint32_t table;
    uint8_t length, revision, checksum, features[5];
} __attribute__((packed));

struct header {
    char signature[4];
    uint16_t length;
    uint8_t revision, checksum;
    char oem[8], product[12];
    uint32_t oem_table;
    uint16_t oem_size, entry_count;
    uint32_t local_apic;
    uint16_t extended_length;
    uint8_t extended_checksum, reserved;
} __attribute__((packed));

enum {
    ENTRY_CPU = 0,
    ENTRY_IO_APIC = 2
};

struct cpu_entry {
    uint8_t type, id, version, flags;
    uint32_t signature, features, reserved[2];
} __attribute__((packed));

#define CPU_ENABLED 1
#define CPU_BOOT 2

struct io_apic_entry {
    uint8_t type, id, version, flags;
    uint32_t address;
} __attribute__((packed));

static const struct header *find_table(void) {
    const struct pointer *pointer =
        find_signature("_MP_", BASE_MEMORY_END - 1024, BASE_MEMORY_END);
    if (!pointer)
        pointer = find_signature("_MP_", BIOS_START, BIOS_END);
    if (!pointer)
        fail("there is no MP floating pointer");
    check(sums_to_zero(pointer, pointer->length * 16));
    const struct header *table = (const struct header *)(uint64_t)pointer->table;
    check(memcmp(table->signature, "PCMP", 4) == 0);
    check(sums_to_zero(table, table->length));
    return table;
}

struct id_list read_mp_table(void) {
    const struct header *table = find_table();
    struct id_list list = {0, allocate(table->entry_count * sizeof(uint32_t))};
    uint32_t boot_cpus = 0;
    check_equal(table->local_apic, platform.local_apic);
    const uint8_t *entry = (const uint8_t *)(table + 1);
    for (uint32_t i = 0; i < table->entry_count; i++) {
        const struct cpu_entry *cpu = (const struct cpu_entry *)entry;
        if (*entry == ENTRY_CPU && cpu->flags & CPU_ENABLED) {
            list.ids[list.count++] = cpu->id;
            boot_cpus += (cpu->flags & CPU_BOOT) != 0;
        }
        if (*entry == ENTRY_IO_APIC)
            check_equal(((const struct io_apic_entry *)entry)->address, platform.io_apic);
        // All other entries have 8 bytes.
        entry += *entry == ENTRY_CPU ? sizeof(struct cpu_entry) : 8;
    }
    check(entry == (const uint8_t *)table + table->length);
    check_equal(boot_cpus, 1);
    return list;
}
