// acpi.c: the ACPI tables (ACPI 6.5, chapter 5): from the RSDP to the MADT and the FADT, and the
// power-off with which a test ends.

#include "pc.h"

#define BIOS_START 0xe0000
#define BIOS_END 0x100000

struct platform platform;

struct rsdp {
    char signature[8];
    uint8_t checksum;
    char oem[6];
    uint8_t revision;
    uint32_t rsdt, length;
    uint64_t xsdt;
    uint8_t extended_checksum, reserved[3];
} __attribute__((packed));

struct header {
    char signature[4];
    uint32_t length;
    uint8_t revision, checksum;
    char oem[6], oem_table[8];
    uint32_t oem_revision, creator, creator_revision;
} __attribute__((packed));

struct madt {
    struct header header;
    uint32_t local_apic, flags;
    uint8_t entries[];
} __attribute__((packed));

// Entries of the MADT (table 5.21 and what follows).
enum {
    MADT_LOCAL_APIC = 0,
    MADT_IO_APIC = 1,
    MADT_OVERRIDE = 2,
    MADT_LOCAL_X2APIC = 9
};

#define APIC_ENABLED 1

struct madt_entry {
    uint8_t type, length;
    union {
        struct {
            uint8_t uid, id;
            uint32_t flags;
        } __attribute__((packed)) local_apic;
        struct {
            uint8_t id, reserved;
            uint32_t address, gsi_base;
        } __attribute__((packed)) io_apic;
        struct {
            uint8_t bus, source;
            uint32_t gsi;
            uint16_t flags;
        } __attribute__((packed)) override;
        struct {
            uint16_t reserved;
            uint32_t id, flags, uid;
        } __attribute__((packed)) local_x2apic;
    };
} __attribute__((packed));

// Offsets in the FADT (table 5.9).
enum {
    FADT_DSDT = 40,
    FADT_PM1A_CNT = 64,
    FADT_PM_TMR = 76,
    FADT_PM_TMR_LEN = 91,
    FADT_FLAGS = 112,
    FADT_X_DSDT = 140
};
#define FADT_TMR_VAL_EXT 0x100

// What the first checksum of the RSDP is about: all that revision 0 has (section 5.2.5.3).
#define RSDP_V1_SIZE 20

// AML: the encodings of a package and of a number of one byte (section 20.2).
#define AML_PACKAGE "\x12"
#define AML_BYTE_PREFIX 0x0a

// PM1_CNT (section 4.8.3.2.1).
#define SLEEP_TYPE_SHIFT 10
#define SLEEP_ENABLE 0x2000

static const struct header *xsdt;

static const struct header *checked(uint64_t address) {
    const struct header *table = (const struct header *)address;
    if (!sums_to_zero(table, table->length))
        fail("the ACPI table at 0x%lx has a wrong checksum", address);
    return table;
}

static const struct header *find_table(const char *signature) {
    const uint64_t *entries = (const uint64_t *)(xsdt + 1);
    for (uint32_t i = 0; i < (xsdt->length - sizeof(*xsdt)) / 8; i++)
        if (memcmp((const void *)entries[i], signature, 4) == 0)
            return checked(entries[i]);
    fail("there is no ACPI table %s", signature);
}

static void find_xsdt(void) {
    const struct rsdp *rsdp = find_signature("RSD PTR ", BIOS_START, BIOS_END);
    if (!rsdp)
        fail("there is no RSDP in the BIOS area: are there interrupt controllers?");
    if (boot.rsdp)
        check_equal(boot.rsdp, (uint64_t)rsdp);
    check(sums_to_zero(rsdp, RSDP_V1_SIZE));
    check(rsdp->revision >= 2);
    check(sums_to_zero(rsdp, rsdp->length));
    xsdt = checked(rsdp->xsdt);
    check(memcmp(xsdt->signature, "XSDT", 4) == 0);
}

static void add_id(struct id_list *list, uint32_t id, uint32_t flags) {
    if (flags & APIC_ENABLED)
        list->ids[list->count++] = id;
}

static void read_madt_entry(const struct madt_entry *entry, struct id_list *list) {
    switch (entry->type) {
    case MADT_LOCAL_APIC:
        if (entry->local_apic.id != XAPIC_BROADCAST)
            add_id(list, entry->local_apic.id, entry->local_apic.flags);
        break;
    case MADT_LOCAL_X2APIC:
        add_id(list, entry->local_x2apic.id, entry->local_x2apic.flags);
        break;
    case MADT_IO_APIC:
        platform.io_apic = entry->io_apic.address;
        platform.io_apic_gsi_base = entry->io_apic.gsi_base;
        break;
    case MADT_OVERRIDE:
        check(entry->override.source < ISA_LINES);
        platform.isa_gsi[entry->override.source] = entry->override.gsi;
        platform.isa_flags[entry->override.source] = entry->override.flags;
        break;
    default:
        break;
    }
}

static struct id_list read_madt(void) {
    const struct madt *madt = (const struct madt *)find_table("APIC");
    // An entry of a CPU has at least 8 bytes.
    struct id_list list = {0, allocate(madt->header.length / 8 * sizeof(uint32_t))};
    for (uint32_t line = 0; line < ISA_LINES; line++)
        platform.isa_gsi[line] = line;
    platform.local_apic = madt->local_apic;
    const uint8_t *next = madt->entries, *end = (const uint8_t *)madt + madt->header.length;
    while (next < end) {
        const struct madt_entry *entry = (const struct madt_entry *)next;
        if (entry->length < 2)
            fail("an entry of the MADT of %u bytes", (uint32_t)entry->length);
        read_madt_entry(entry, &list);
        next += entry->length;
    }
    check(next == end);
    check(platform.io_apic);
    return list;
}

// The sleep type of \_S5: in AML, a package that begins with integers. A hobby kernel's way:
// without an interpreter.
static uint16_t soft_off_type(const struct header *dsdt) {
    const uint8_t *aml = (const uint8_t *)dsdt, *end = aml + dsdt->length;
    for (; aml + 8 < end; aml++) {
        if (aml[0] != '_' || memcmp(aml, "_S5_" AML_PACKAGE, 5) != 0)
            continue;
        aml += 5;
        aml += (*aml >> 6) + 1 + 1; // the package's length, and how many elements
        return *aml == AML_BYTE_PREFIX ? aml[1] : *aml;
    }
    fail("the DSDT has no package \\_S5");
}

static void read_fadt(void) {
    const struct header *table = find_table("FACP");
    const uint8_t *fadt = (const uint8_t *)table;
    uint64_t dsdt = *(const uint32_t *)(fadt + FADT_DSDT);
    if (table->length >= FADT_X_DSDT + 8 && *(const uint64_t *)(fadt + FADT_X_DSDT))
        dsdt = *(const uint64_t *)(fadt + FADT_X_DSDT);
    platform.sleep_type = soft_off_type(checked(dsdt));
    platform.pm1a_control = *(const uint32_t *)(fadt + FADT_PM1A_CNT);
    if (fadt[FADT_PM_TMR_LEN])
        platform.pm_timer = *(const uint32_t *)(fadt + FADT_PM_TMR);
    platform.pm_timer_32_bits = *(const uint32_t *)(fadt + FADT_FLAGS) & FADT_TMR_VAL_EXT;
    check(platform.pm1a_control);
}

struct id_list read_acpi(void) {
    find_xsdt();
    read_fadt();
    return read_madt();
}

_Noreturn void power_off(void) {
    interrupts_off();
    out16((uint16_t)platform.pm1a_control,
          (uint16_t)(platform.sleep_type << SLEEP_TYPE_SHIFT | SLEEP_ENABLE));
    for (;;)
        halt();
}
