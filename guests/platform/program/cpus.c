// cpus.c: the CPUs that the tables name.

#include "pc.h"

#include "entry.h"

#define STACK_SIZE 8192u

_Static_assert(offsetof(struct cpu, stack) == CPU_STACK, "start.S finds the stack");

struct cpu **cpus;
uint32_t cpu_count;

// What start.S finds a CPU by.
struct cpu **cpu_by_apic_id;
uint32_t apic_id_limit;

static struct id_list acpi, mp;

static struct cpu *new_cpu(uint32_t index, uint32_t apic_id, bool running) {
    struct cpu *cpu = allocate(sizeof(struct cpu));
    cpu->self = cpu;
    cpu->index = index;
    cpu->apic_id = apic_id;
    if (!running)
        cpu->stack = (char *)allocate(STACK_SIZE) + STACK_SIZE;
    cpus[index] = cpu;
    cpu_by_apic_id[apic_id] = cpu;
    return cpu;
}

void find_cpus(void) {
    uint32_t own = own_apic_id();
    acpi = read_acpi();
    mp = read_mp_table();
    for (uint32_t i = 0; i < acpi.count; i++)
        if (acpi.ids[i] >= apic_id_limit)
            apic_id_limit = acpi.ids[i] + 1;
    cpus = allocate(acpi.count * sizeof(*cpus));
    cpu_by_apic_id = allocate(apic_id_limit * sizeof(*cpu_by_apic_id));
    cpu_count = 1;
    for (uint32_t i = 0; i < acpi.count; i++) {
        uint32_t id = acpi.ids[i];
        if (cpu_by_apic_id[id])
            fail("the MADT has APIC id %u twice", id);
        if (id != own && cpu_count == acpi.count)
            fail("the MADT does not have APIC id %u, which this CPU has", own);
        new_cpu(id == own ? 0 : cpu_count++, id, id == own);
    }
    wrmsr(MSR_GS_BASE, (uint64_t)cpus[0]);
}

// Both tables have the same CPUs, but that the MP table ends where its ids do.
void test_cpus(void) {
    uint32_t common = 0;
    for (uint32_t i = 0; i < cpu_count; i++)
        common += cpus[i]->apic_id < XAPIC_BROADCAST;
    for (uint32_t i = 0; i < mp.count; i++)
        if (mp.ids[i] >= apic_id_limit || !cpu_by_apic_id[mp.ids[i]])
            fail("APIC id %u is in the MP table and not in the MADT", mp.ids[i]);
    check_equal(mp.count, common);
    if (boot.cpus)
        check_equal(cpu_count, boot.cpus);
    print("cpus: ok, %u in the MADT, %u in the MP table\n", cpu_count, mp.count);
}
