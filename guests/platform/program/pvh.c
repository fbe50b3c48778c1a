// pvh.c: the start info of a PVH loader (Xen's public/arch-x86/hvm/start_info.h).

#include "pc.h"

#define START_MAGIC 0x336ec578
#define TYPE_RAM 1

struct start_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, cmdline, rsdp;
    uint64_t map;                   // from version 1 on
    uint32_t map_entries, reserved;
};

struct module_entry {
    uint64_t start, size, cmdline, reserved;
};

struct map_entry {
    uint64_t start, size;
    uint32_t type, reserved;
};

void read_pvh(uint64_t address) {
    const struct start_info *info = (const struct start_info *)address;
    check_equal(info->magic, START_MAGIC);
    // Before version 1 there is no memory map.
    check(info->version >= 1);
    check_equal(info->flags, 0);
    set_cmdline(info->cmdline);
    boot.rsdp = info->rsdp;
    const struct map_entry *map = (const struct map_entry *)info->map;
    for (uint32_t i = 0; i < info->map_entries; i++)
        if (map[i].type == TYPE_RAM)
            add_ram(map[i].start, map[i].size);
    const struct module_entry *modules = (const struct module_entry *)info->modules;
    for (uint32_t i = 0; i < info->module_count; i++)
        add_module(modules[i].start, modules[i].size, modules[i].cmdline);
}
