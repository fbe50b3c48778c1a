// multiboot.c: the information that a Multiboot 1 loader gives (Multiboot Specification 0.6.96,
// section 3.3).

#include "pc.h"

#define LOADER_MAGIC 0x2badb002

enum flag {
    INFO_MEMORY = 1 << 0,
    INFO_CMDLINE = 1 << 2,
    INFO_MODULES = 1 << 3,
    INFO_MEMORY_MAP = 1 << 6,
    INFO_LOADER_NAME = 1 << 9
};

#define TYPE_AVAILABLE 1

struct info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
    uint32_t mmap_length, mmap_addr, drives_length, drives_addr, config_table, loader_name;
};

struct module_entry {
    uint32_t start, end, string, reserved;
};

struct map_entry {
    uint32_t size;                  // of what follows
    uint64_t start, length;
    uint32_t type;
} __attribute__((packed));

static void read_map(const struct info *info) {
    uint64_t entry = info->mmap_addr, end = entry + info->mmap_length;
    while (entry < end) {
        const struct map_entry *map = (const struct map_entry *)entry;
        if (map->size < 20)
            fail("an entry of the memory map of %u bytes", map->size);
        if (map->type == TYPE_AVAILABLE)
            add_ram(map->start, map->length);
        entry += map->size + 4;
    }
    check_equal(entry, end);
}

// mem_lower and mem_upper against the map: KiB from 0 and from 1 MiB, without a hole.
static void check_sizes(const struct info *info) {
    for (uint32_t i = 0; i < boot.ram_ranges; i++) {
        struct range ram = boot.ram[i];
        if (ram.start == 0)
            check_equal(info->mem_lower, ram.end / 1024);
        if (ram.start == 0x100000)
            check_equal(info->mem_upper, (ram.end - ram.start) / 1024);
    }
    if (info->mem_lower > 640)
        fail("mem_lower is %u KiB", info->mem_lower);
}

void read_multiboot(uint64_t magic, uint64_t address) {
    const struct info *info = (const struct info *)address;
    check_equal(magic, LOADER_MAGIC);
    // The header asks for these two, and we cannot do without the map.
    check(info->flags & INFO_MEMORY);
    check(info->flags & INFO_MEMORY_MAP);
    if (info->flags & INFO_CMDLINE)
        set_cmdline(info->cmdline);
    read_map(info);
    check_sizes(info);
    if (info->flags & INFO_MODULES) {
        const struct module_entry *modules = (const struct module_entry *)(uint64_t)info->mods_addr;
        for (uint32_t i = 0; i < info->mods_count; i++) {
            // The header asks for it.
            if (modules[i].start % 4096)
                fail("module %u at 0x%x, which no page starts at", i, modules[i].start);
            add_module(modules[i].start, modules[i].end - modules[i].start, modules[i].string);
        }
    }
    if (info->flags & INFO_LOADER_NAME)
        check(*(const char *)(uint64_t)info->loader_name);
}
