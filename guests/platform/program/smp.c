// smp.c: brings the other CPUs up by INIT and SIPI, and down and up again.

#include "pc.h"

extern char trampoline[], trampoline_end[];
extern volatile uint32_t stray_seen, stray_apic_id;

// Pages below 1 MiB for SIPI: the first start, and the second, near the end of what there is.
#define FIRST_PAGE 0x08
#define SECOND_PAGE 0x9e

// xAPIC logical ids: in the flat model one bit each, else clusters of four (SDM volume 3, section
// 12.6.2.2). Beyond that only x2APIC has them.
#define CLUSTER_CPUS 60u
#define DFR_FLAT 0xffffffffu
#define DFR_CLUSTER 0x0fffffffu

static _Atomic uint32_t checked_in;
static bool need_x2apic;
static bool started;

static void set_logical_id(struct cpu *cpu) {
    if (cpu->x2apic) {
        cpu->logical_id = apic_read(APIC_LDR);
        // Section 12.12.10.2: cluster and bit, from the id.
        check_equal(cpu->logical_id, cpu->apic_id >> 4 << 16 | 1u << (cpu->apic_id & 15));
        return;
    }
    // KVM goes through all CPUs for each that changes its own.
    if (cpu_count > CLUSTER_CPUS)
        return;
    if (cpu_count <= FLAT_CPUS)
        cpu->logical_id = 1u << cpu->index;
    else
        cpu->logical_id = cpu->index / 4 << 4 | 1u << cpu->index % 4;
    apic_write(APIC_DFR, cpu_count <= FLAT_CPUS ? DFR_FLAT : DFR_CLUSTER);
    apic_write(APIC_LDR, cpu->logical_id << 24);
}

void ap_main(struct cpu *cpu);

void ap_main(struct cpu *cpu) {
    load_idt();
    wrmsr(MSR_GS_BASE, (uint64_t)cpu);
    enable_apic(cpu, need_x2apic);
    set_logical_id(cpu);
    cpu->starts++;
    if (atomic_fetch_add(&checked_in, 1) + 1 == cpu_count - 1)
        wake_boot_cpu();
    sleep_and_work(cpu);
}

// INIT to all that are to start, then SIPI to all. Today's CPUs need no time between the two
// (Linux's smpboot.c waits only for CPUs of before 2006).
static void start_all(uint32_t page) {
    memcpy((void *)(uint64_t)(page << 12), trampoline, (size_t)(trampoline_end - trampoline));
    checked_in = 0;
    for (uint32_t i = 1; i < cpu_count; i++)
        send_ipi(cpus[i]->apic_id, DELIVER_INIT);
    for (uint32_t i = 1; i < cpu_count; i++)
        send_ipi(cpus[i]->apic_id, DELIVER_START_UP | page);
    wait_for(checked_in == cpu_count - 1 || stray_seen);
    if (stray_seen)
        fail("a CPU with APIC id %u came up, which is not in the MADT", stray_apic_id);
}

// Ids that xAPIC cannot send to take x2APIC, on all CPUs.
static void choose_mode(void) {
    for (uint32_t i = 0; i < cpu_count; i++)
        need_x2apic |= cpus[i]->apic_id >= XAPIC_BROADCAST;
    if (need_x2apic && !has_x2apic())
        fail("there are APIC ids from %u on and no x2APIC", XAPIC_BROADCAST);
    if (need_x2apic)
        enable_apic(cpus[0], true);
}

void start_cpus(void) {
    if (started)
        return;
    started = true;
    choose_mode();
    set_logical_id(cpus[0]);
    if (cpu_count > 1)
        start_all(FIRST_PAGE);
}

static void switch_to_x2apic(struct cpu *cpu) {
    enable_apic(cpu, true);
    set_logical_id(cpu);
}

void use_x2apic(void) {
    // Each by itself: until the end of it, IPIs to it may be in either form.
    for (uint32_t i = 1; i < cpu_count; i++)
        run_on(cpus[i], switch_to_x2apic);
    switch_to_x2apic(cpus[0]);
    // For those that start again.
    need_x2apic = true;
}

void test_smp(void) {
    uint32_t before = cpu_count > 1 ? cpus[1]->starts : 0;
    start_cpus();
    // INIT takes a CPU down that runs, too: here all that sleep.
    if (cpu_count > 1)
        start_all(SECOND_PAGE);
    for (uint32_t i = 1; i < cpu_count; i++)
        check_equal(cpus[i]->starts, before ? before + 1 : 2);
    print("smp: ok, %u CPUs up\n", cpu_count);
}
