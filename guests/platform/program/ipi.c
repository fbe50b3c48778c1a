// ipi.c: IPIs in every delivery mode, from each CPU to each: each arrives exactly once, and the
// last to arrive wakes the sender, which sleeps.
//
// Not sent: SMI, which leads into firmware that is not there; ExtINT, which is for pins; INIT and
// SIPI, which smp.c sends.

#include "pc.h"

// With more CPUs only some of them are senders.
#define MAX_ALL_PAIRS 16u
#define SENDERS_OF_MANY 4u

struct mode {
    enum event event;
    uint32_t command;
    bool xapic_only;
};

// Lowest priority is reserved in x2APIC's ICR (SDM volume 3, section 12.12.9).
static const struct mode modes[] = {
    {EVENT_FIXED, DELIVER_FIXED | VECTOR_FIXED, false},
    {EVENT_FIXED, DELIVER_FIXED | DESTINATION_LOGICAL | VECTOR_FIXED, false},
    {EVENT_LOWEST, DELIVER_LOWEST | VECTOR_LOWEST, true},
    {EVENT_LOWEST, DELIVER_LOWEST | DESTINATION_LOGICAL | VECTOR_LOWEST, true},
    {EVENT_NMI, DELIVER_NMI, false},
    {EVENT_NMI, DELIVER_NMI | DESTINATION_LOGICAL, false},
};

static struct cpu *sender;
static const struct mode *mode;

// IPIs of the sender that have not arrived.
static _Atomic uint32_t outstanding;

// What each CPU should have got, of each event; and how many IPIs were sent in all.
static uint32_t (*due)[EVENTS];
static uint32_t sent;

static void arrived(struct cpu *cpu, enum event event) {
    cpu->events[event]++;
    if (atomic_fetch_sub(&outstanding, 1) == 1 && cpu != sender)
        wake(sender);
}

static void got_interrupt(struct cpu *cpu, uint32_t vector) {
    arrived(cpu, vector == VECTOR_FIXED    ? EVENT_FIXED
                 : vector == VECTOR_LOWEST ? EVENT_LOWEST
                                           : EVENT_SELF);
    end_of_interrupt();
}

static void got_nmi(struct cpu *cpu, uint32_t vector) {
    (void)vector;
    arrived(cpu, EVENT_NMI);
}

static void compare(struct cpu *cpu) {
    for (uint32_t event = 0; event <= EVENT_SELF; event++)
        if (cpu->events[event] != due[cpu->index][event])
            fail("CPU %u got %u interrupts of kind %u instead of %u, of CPU %u's by 0x%x",
                 cpu->index, cpu->events[event], event, due[cpu->index][event], sender->index,
                 mode->command);
}

// One to each other CPU.
static void send_to_each(struct cpu *self) {
    outstanding = cpu_count - 1;
    for (uint32_t i = 0; i < cpu_count; i++) {
        if (i == self->index)
            continue;
        bool logical = mode->command & DESTINATION_LOGICAL;
        due[i][mode->event]++;
        sent++;
        send_ipi(logical ? cpus[i]->logical_id : cpus[i]->apic_id, mode->command);
    }
    sleep_until(outstanding == 0);
    for (uint32_t i = 0; i < cpu_count; i++)
        compare(cpus[i]);
}

// One IPI that `count` CPUs get: all, if self is one of them.
static void send_to_many(struct cpu *self, enum event event, uint32_t destination,
                         uint32_t command, bool to_self) {
    uint32_t count = cpu_count - !to_self;
    if (!count)
        return;
    for (uint32_t i = 0; i < cpu_count; i++)
        due[i][event] += to_self || i != self->index;
    outstanding = count;
    sent++;
    send_ipi(destination, command);
    sleep_until(outstanding == 0);
    for (uint32_t i = 0; i < cpu_count; i++)
        compare(cpus[i]);
}

// One IPI to a group of all CPUs in the flat model, of which one gets it.
static void send_to_any(void) {
    uint32_t before = 0, after = 0;
    for (uint32_t i = 0; i < cpu_count; i++)
        before += cpus[i]->events[EVENT_LOWEST];
    outstanding = 1;
    sent++;
    send_ipi((1u << cpu_count) - 1, DELIVER_LOWEST | DESTINATION_LOGICAL | VECTOR_LOWEST);
    sleep_until(outstanding == 0);
    for (uint32_t i = 0; i < cpu_count; i++) {
        after += cpus[i]->events[EVENT_LOWEST];
        due[i][EVENT_LOWEST] = cpus[i]->events[EVENT_LOWEST];
    }
    check_equal(after, before + 1);
}

static void send_to_self(struct cpu *self, uint32_t command) {
    due[self->index][EVENT_SELF]++;
    outstanding = 1;
    sent++;
    if (command == APIC_SELF_IPI)
        apic_write(APIC_SELF_IPI, VECTOR_SELF);
    else
        send_ipi(self->apic_id, command);
    sleep_until(outstanding == 0);
    compare(self);
}

// The shorthands that are valid (SDM volume 3, section 12.6.1), and the broadcast.
static void send_by_shorthand(struct cpu *self) {
    static const struct mode shorthand = {EVENT_SELF, ICR_SELF, false};
    mode = &shorthand;
    send_to_self(self, ICR_SELF | VECTOR_SELF);
    send_to_self(self, DELIVER_FIXED | VECTOR_SELF);
    if (self->x2apic)
        send_to_self(self, APIC_SELF_IPI);
    send_to_many(self, EVENT_FIXED, 0, ICR_ALL | VECTOR_FIXED, true);
    send_to_many(self, EVENT_FIXED, 0, ICR_OTHERS | VECTOR_FIXED, false);
    send_to_many(self, EVENT_NMI, 0, ICR_OTHERS | DELIVER_NMI, false);
    uint32_t broadcast = self->x2apic ? UINT32_MAX : XAPIC_BROADCAST;
    send_to_many(self, EVENT_FIXED, broadcast, VECTOR_FIXED, true);
    if (!self->x2apic && cpu_count <= FLAT_CPUS)
        send_to_any();
}

static bool possible(void) {
    bool x2apic = cpus[0]->x2apic;
    // xAPIC's logical ids do not do for many CPUs.
    if (mode->command & DESTINATION_LOGICAL && !cpus[0]->logical_id)
        return false;
    return cpu_count > 1 && !(x2apic && mode->xapic_only);
}

static void send_from(struct cpu *cpu) {
    sender = cpu;
    for (mode = modes; mode < modes + sizeof(modes) / sizeof(*modes); mode++)
        if (possible())
            run_on(cpu, send_to_each);
    run_on(cpu, send_by_shorthand);
}

static void send_all(void) {
    set_handler(VECTOR_FIXED, got_interrupt);
    set_handler(VECTOR_LOWEST, got_interrupt);
    set_handler(VECTOR_SELF, got_interrupt);
    set_handler(VECTOR_NMI, got_nmi);
    sent = 0;
    due = allocate(cpu_count * sizeof(*due));
    for (uint32_t i = 0; i < cpu_count; i++)
        for (uint32_t event = 0; event <= EVENT_SELF; event++)
            due[i][event] = cpus[i]->events[event];
    uint32_t senders = cpu_count <= MAX_ALL_PAIRS ? cpu_count : SENDERS_OF_MANY;
    for (uint32_t k = 0; k < senders; k++)
        send_from(cpus[cpu_count * k / senders]);
    // Nothing came twice, late.
    for (uint32_t i = 0; i < cpu_count; i++)
        compare(cpus[i]);
}

void test_ipi(void) {
    send_all();
    print("ipi: ok, %u sent in %s mode\n", sent, cpus[0]->x2apic ? "x2APIC" : "xAPIC");
}

void test_x2apic(void) {
    if (!has_x2apic()) {
        print("x2apic: skipped, CPUID has no x2APIC\n");
        return;
    }
    use_x2apic();
    send_all();
    print("x2apic: ok, %u sent\n", sent);
}
