// fwcfg.c: QEMU's firmware configuration device (QEMU's docs/specs/fw_cfg.rst): what it says of the
// machine, and the file from which a format without a command line has one.

#include "pc.h"

#define SELECTOR 0x510
#define DATA 0x511

enum {
    KEY_SIGNATURE = 0x00,
    KEY_ID = 0x01,
    KEY_RAM_SIZE = 0x03,
    KEY_CPUS = 0x05,
    KEY_DIRECTORY = 0x19
};

// The interface by these two ports.
#define ID_TRADITIONAL 1

#define CMDLINE_FILE "opt/cmdline"
#define NAME_SIZE 56u

static void select_item(uint16_t key) {
    out16(SELECTOR, key);
}

static uint64_t read_little(uint32_t bytes) {
    uint64_t value = 0;
    for (uint32_t i = 0; i < bytes; i++)
        value |= (uint64_t)in8(DATA) << 8 * i;
    return value;
}

static uint32_t read_big(uint32_t bytes) {
    uint32_t value = 0;
    while (bytes--)
        value = value << 8 | in8(DATA);
    return value;
}

static bool is_there(void) {
    select_item(KEY_SIGNATURE);
    return read_little(4) == 0x554d4551;    // "QEMU"
}

// The size and key of the file with this name, if there is one; returns how many files there are.
static uint32_t look_up(const char *wanted, uint32_t *size, uint16_t *key) {
    select_item(KEY_DIRECTORY);
    uint32_t files = read_big(4);
    for (uint32_t i = 0; i < files; i++) {
        char name[NAME_SIZE + 1] = {0};
        uint32_t this_size = read_big(4);
        uint16_t this_key = (uint16_t)read_big(2);
        read_big(2);
        for (uint32_t k = 0; k < NAME_SIZE; k++)
            name[k] = (char)in8(DATA);
        if (equal(name, wanted)) {
            *size = this_size;
            *key = this_key;
        }
    }
    return files;
}

void read_fw_cfg_cmdline(void) {
    uint32_t size = 0;
    uint16_t key = 0;
    if (!is_there())
        return;
    look_up(CMDLINE_FILE, &size, &key);
    if (size >= MAX_CMDLINE)
        fail("%s has %u bytes", CMDLINE_FILE, size);
    select_item(key);
    for (uint32_t i = 0; i < size; i++) {
        char c = (char)in8(DATA);
        boot.cmdline[i] = c == '\n' ? ' ' : c;
    }
}

void test_fw_cfg(void) {
    uint32_t size = 0;
    uint16_t key = 0;
    uint64_t told = 0;
    if (!is_there())
        fail("there is no fw_cfg");
    select_item(KEY_ID);
    check(read_little(4) & ID_TRADITIONAL);
    select_item(KEY_CPUS);
    check_equal(read_little(2), cpu_count);
    for (uint32_t i = 0; i < boot.ram_ranges; i++)
        told += boot.ram[i].end - boot.ram[i].start;
    select_item(KEY_RAM_SIZE);
    uint64_t ram = read_little(8);
    if (ram < told)
        fail("it has 0x%lx bytes of RAM, and the loader has told of 0x%lx", ram, told);
    print("fw-cfg: ok, %u CPUs, %u files\n", cpu_count, look_up("", &size, &key));
}
