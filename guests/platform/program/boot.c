// boot.c: what the loader has told, in one form for all formats, and whether it makes sense; the
// command line's words; and which RAM is free.

#include "pc.h"

#include "entry.h"

// What loaders must not give out as RAM on a PC: video memory and the BIOS area.
#define LOW_HOLE_START 0xa0000
#define LOW_HOLE_END 0x100000

// Above are devices; and our page tables end at 4 GiB.
#define RAM_LIMIT 0xc0000000

// Only so much of a module is read: instructions can be slow.
#define MODULE_BYTES_SUMMED 65536u

extern char image_start[], image_end[];

struct boot boot;

void add_ram(uint64_t start, uint64_t size) {
    if (boot.ram_ranges == MAX_RANGES)
        fail("more than %u ranges of RAM", MAX_RANGES);
    boot.ram[boot.ram_ranges++] = (struct range){start, start + size};
}

void add_module(uint64_t start, uint64_t size, uint64_t args) {
    if (boot.module_count == MAX_MODULES)
        fail("more than %u modules", MAX_MODULES);
    struct module *module = &boot.modules[boot.module_count++];
    module->place = (struct range){start, start + size};
    if (!args)
        return;
    const char *text = (const char *)args;
    size_t length = strlen(text);
    if (length >= MAX_MODULE_ARGS)
        fail("a module with arguments of %lu bytes", length);
    memcpy(module->args, text, length);
}

void set_cmdline(uint64_t text) {
    if (!text)
        return;
    size_t length = strlen((const char *)text);
    if (length >= MAX_CMDLINE)
        fail("a command line of %lu bytes", length);
    memcpy(boot.cmdline, (const char *)text, length);
}

void read_boot_info(uint32_t format, uint64_t first, uint64_t second) {
    switch (format) {
    case FORMAT_MULTIBOOT:
        boot.format = "multiboot";
        read_multiboot(first, second);
        break;
    case FORMAT_PVH:
        boot.format = "pvh";
        read_pvh(first);
        break;
    case FORMAT_LINUX:
        boot.format = "linux";
        read_linux(first);
        break;
    default:
        boot.format = "elf64";
        // RSI and RCX at entry.
        boot.cpus = (uint32_t)first;
        add_ram(0, second * 4096 < RAM_LIMIT ? second * 4096 : RAM_LIMIT);
        read_fw_cfg_cmdline();
    }
}

static bool overlap(struct range a, struct range b) {
    return a.start < b.end && b.start < a.end;
}

// The range of RAM with the program in it.
static struct range home(void) {
    for (uint32_t i = 0; i < boot.ram_ranges; i++) {
        struct range ram = boot.ram[i];
        if (ram.start <= (uint64_t)image_start && (uint64_t)image_end <= ram.end)
            return ram;
    }
    fail("no RAM of the memory map has the program, 0x%lx to 0x%lx", (uint64_t)image_start,
         (uint64_t)image_end);
}

struct range free_ram(void) {
    uint64_t end = home().end < RAM_LIMIT ? home().end : RAM_LIMIT;
    struct range best = {0, 0};
    uint64_t start = (uint64_t)image_end;
    while (start < end) {
        // Up to the next module.
        struct range gap = {start, end}, next = {end, end};
        for (uint32_t i = 0; i < boot.module_count; i++) {
            struct range module = boot.modules[i].place;
            if (module.end > start && module.start < next.start)
                next = module;
        }
        gap.end = next.start > start ? next.start : start;
        if (gap.end - gap.start > best.end - best.start)
            best = gap;
        start = next.end;
    }
    return best;
}

static void check_ram(void) {
    home();
    for (uint32_t i = 0; i < boot.ram_ranges; i++) {
        struct range ram = boot.ram[i];
        if (ram.start >= ram.end)
            fail("a range of RAM from 0x%lx to 0x%lx", ram.start, ram.end);
        for (uint32_t k = 0; k < i; k++)
            if (overlap(ram, boot.ram[k]))
                fail("RAM from 0x%lx to 0x%lx is there twice", ram.start, ram.end);
        // The ELF entry state only says how much there is, without holes.
        struct range hole = {LOW_HOLE_START, LOW_HOLE_END};
        if (!equal(boot.format, "elf64") && overlap(ram, hole))
            fail("RAM from 0x%lx to 0x%lx where a PC has none", ram.start, ram.end);
    }
}

static void check_modules(void) {
    struct range image = {(uint64_t)image_start, (uint64_t)image_end};
    for (uint32_t i = 0; i < boot.module_count; i++) {
        struct range module = boot.modules[i].place;
        if (overlap(module, image))
            fail("module %u from 0x%lx to 0x%lx is in the program", i, module.start, module.end);
        for (uint32_t k = 0; k < i; k++)
            if (overlap(module, boot.modules[k].place))
                fail("modules %u and %u overlap", k, i);
        bool in_ram = module.start == module.end;
        for (uint32_t k = 0; k < boot.ram_ranges; k++)
            in_ram |= boot.ram[k].start <= module.start && module.end <= boot.ram[k].end;
        if (!in_ram)
            fail("module %u from 0x%lx to 0x%lx is not in RAM", i, module.start, module.end);
    }
}

void test_boot(void) {
    uint64_t ram = 0;
    check_ram();
    check_modules();
    for (uint32_t i = 0; i < boot.ram_ranges; i++)
        ram += boot.ram[i].end - boot.ram[i].start;
    for (uint32_t i = 0; i < boot.module_count; i++) {
        struct module *module = &boot.modules[i];
        uint64_t size = module->place.end - module->place.start;
        const uint8_t *bytes = (const uint8_t *)module->place.start;
        uint32_t sum = 0;
        for (uint64_t k = 0; k < size && k < MODULE_BYTES_SUMMED; k++)
            sum += bytes[k];
        print("module: %lu bytes, sum %u, \"%s\"\n", size, sum, module->args);
    }
    print("boot: ok, %lu KiB of RAM, %u modules\n", ram / 1024, boot.module_count);
}

// ---- The command line ----------------------------------------------------------------------

// The word that begins with `prefix`, behind that; NULL if there is none.
static const char *find_word(const char *prefix) {
    size_t length = strlen(prefix);
    const char *word = boot.cmdline;
    while (*word) {
        if (*word != ' ' && memcmp(word, prefix, length) == 0)
            return word + length;
        while (*word && *word != ' ')
            word++;
        while (*word == ' ')
            word++;
    }
    return NULL;
}

uint32_t parameter(const char *name, uint32_t missing) {
    const char *digit = find_word(name);
    uint32_t value = 0;
    if (!digit)
        return missing;
    while (*digit >= '0' && *digit <= '9')
        value = value * 10 + (uint32_t)(*digit++ - '0');
    return value;
}

bool has_word(const char *word) {
    const char *end = find_word(word);
    return end && (*end == 0 || *end == ' ');
}

bool in_list(const char *name, const char *word, bool missing) {
    const char *entry = find_word(name);
    size_t length = strlen(word);
    if (!entry)
        return missing;
    for (;;) {
        char behind = memcmp(entry, word, length) == 0 ? entry[length] : 'x';
        if (behind == ',' || behind == ' ' || behind == 0)
            return true;
        while (*entry && *entry != ' ' && *entry != ',')
            entry++;
        if (*entry++ != ',')
            return false;
    }
}
