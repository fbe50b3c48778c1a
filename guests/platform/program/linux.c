// linux.c: the boot parameters of the Linux boot protocol, the "zero page" (the Linux kernel's
// Documentation/arch/x86/zero-page.rst and boot.rst).

#include "pc.h"

// Offsets in it.
enum {
    EXT_RAMDISK_IMAGE = 0x0c0,
    EXT_RAMDISK_SIZE = 0x0c4,
    EXT_CMD_LINE_PTR = 0x0c8,
    ACPI_RSDP_ADDR = 0x070,
    E820_ENTRIES = 0x1e8,
    BOOT_FLAG = 0x1fe,
    HEADER_MAGIC = 0x202,
    TYPE_OF_LOADER = 0x210,
    RAMDISK_IMAGE = 0x218,
    RAMDISK_SIZE = 0x21c,
    CMD_LINE_PTR = 0x228,
    CMDLINE_SIZE = 0x238,
    E820_TABLE = 0x2d0
};

#define TYPE_RAM 1
#define MAX_E820 128

struct e820_entry {
    uint64_t start, size;
    uint32_t type;
} __attribute__((packed));

static uint32_t field(uint64_t params, uint32_t offset) {
    return *(const uint32_t *)(params + offset);
}

static uint64_t wide(uint64_t params, uint32_t low, uint32_t high) {
    return field(params, low) | (uint64_t)field(params, high) << 32;
}

void read_linux(uint64_t params) {
    check_equal(*(const uint16_t *)(params + BOOT_FLAG), 0xaa55);
    check(memcmp((const void *)(params + HEADER_MAGIC), "HdrS", 4) == 0);
    check(*(const uint8_t *)(params + TYPE_OF_LOADER));
    // From our own header: the loader has copied it.
    check_equal(field(params, CMDLINE_SIZE), MAX_CMDLINE - 1);

    uint32_t entries = *(const uint8_t *)(params + E820_ENTRIES);
    check(entries <= MAX_E820);
    const struct e820_entry *map = (const struct e820_entry *)(params + E820_TABLE);
    for (uint32_t i = 0; i < entries; i++)
        if (map[i].type == TYPE_RAM)
            add_ram(map[i].start, map[i].size);

    set_cmdline(wide(params, CMD_LINE_PTR, EXT_CMD_LINE_PTR));
    uint64_t size = wide(params, RAMDISK_SIZE, EXT_RAMDISK_SIZE);
    if (size)
        add_module(wide(params, RAMDISK_IMAGE, EXT_RAMDISK_IMAGE), size, 0);
    boot.rsdp = *(const uint64_t *)(params + ACPI_RSDP_ADDR);
}
