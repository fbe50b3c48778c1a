// timers.c: ticks of the PIT, by the IOAPIC and by the PIC, and of the local timer in its modes.
// Only that as many come as are due: when is not looked at.

#include "pc.h"

#define DEFAULT_TICKS 20u

// The PIT at 1 kHz.
#define PIT_COUNT (PIT_HZ / 1000)

// The local timer's divisor (SDM volume 3, figure 12-10), and its count: 1 ms at some 1 GHz.
#define DIVIDE_BY_1 0xb
#define TIMER_COUNT 1000000u

// Until the next deadline: some 0.1 to 1 ms.
#define DEADLINE_CYCLES 1000000u

static uint32_t ticks_wanted(void) {
    return parameter("ticks=", DEFAULT_TICKS);
}

// ---- The PIT -------------------------------------------------------------------------------

static void pit_tick(struct cpu *cpu, uint32_t vector) {
    (void)vector;
    cpu->events[EVENT_PIT]++;
    end_of_interrupt();
}

void test_pit(void) {
    uint32_t gsi = platform.isa_gsi[0], ticks = ticks_wanted();
    volatile uint32_t *seen = &cpus[0]->events[EVENT_PIT];
    uint32_t until = *seen + ticks;
    check(io_apic_pins() > gsi - platform.io_apic_gsi_base);
    set_handler(VECTOR_PIT, pit_tick);
    io_apic_route(gsi, platform.isa_flags[0], cpus[0]->apic_id, DELIVER_FIXED | VECTOR_PIT);
    pit_start(PIT_COUNT);
    wait_for(*seen >= until);
    io_apic_mask(gsi);
    pit_stop();
    print("pit: ok, %u ticks by IOAPIC pin %u\n", ticks, gsi - platform.io_apic_gsi_base);
}

static void pic_tick(struct cpu *cpu, uint32_t vector) {
    cpu->events[EVENT_PIC]++;
    pic_end_of_interrupt(vector - VECTOR_PIC);
}

// The PIC's interrupt comes through LINT0 and has no end at the local APIC.
void test_pic(void) {
    uint32_t ticks = ticks_wanted();
    volatile uint32_t *seen = &cpus[0]->events[EVENT_PIC];
    uint32_t until = *seen + ticks;
    set_handler(VECTOR_PIC, pic_tick);
    apic_write(APIC_LVT_LINT0, DELIVER_EXTINT);
    pic_mask((uint16_t)~1u);
    pit_start(PIT_COUNT);
    wait_for(*seen >= until);
    pic_mask(0xffff);
    pit_stop();
    apic_write(APIC_LVT_LINT0, LVT_MASKED);
    print("pic: ok, %u ticks by LINT0\n", ticks);
}

// ---- The IOAPIC's destinations -------------------------------------------------------------

// With more CPUs only the first of them are destinations.
#define DESTINATIONS 16u

static _Atomic uint32_t arrived;

static void arrive(struct cpu *cpu, enum event event) {
    cpu->events[event]++;
    if (atomic_fetch_add(&arrived, 1) == 0)
        wake_boot_cpu();
}

static void tick_elsewhere(struct cpu *cpu, uint32_t vector) {
    (void)vector;
    arrive(cpu, EVENT_PIT);
    end_of_interrupt();
}

static void tick_nmi(struct cpu *cpu, uint32_t vector) {
    (void)vector;
    arrive(cpu, EVENT_NMI);
}

// One tick, which exactly one CPU gets.
static void one_tick(uint32_t destination, uint32_t command) {
    uint32_t gsi = platform.isa_gsi[0];
    arrived = 0;
    io_apic_route(gsi, platform.isa_flags[0], destination, command);
    pit_once(PIT_COUNT);
    wait_for(arrived);
    io_apic_mask(gsi);
    check_equal(arrived, 1);
}

void test_ioapic(void) {
    uint32_t routes = 0;
    set_handler(VECTOR_PIT, tick_elsewhere);
    set_handler(VECTOR_NMI, tick_nmi);
    for (uint32_t i = 0; i < cpu_count && i < DESTINATIONS; i++) {
        struct cpu *cpu = cpus[i];
        if (cpu->apic_id >= XAPIC_BROADCAST)
            break;
        uint32_t pit = cpu->events[EVENT_PIT], nmi = cpu->events[EVENT_NMI];
        one_tick(cpu->apic_id, DELIVER_FIXED | VECTOR_PIT);
        one_tick(cpu->apic_id, DELIVER_NMI);
        routes += 2;
        // In x2APIC mode a logical id does not fit.
        if (cpu->logical_id && !cpu->x2apic) {
            one_tick(cpu->logical_id, DELIVER_FIXED | DESTINATION_LOGICAL | VECTOR_PIT);
            one_tick(cpu->logical_id, DELIVER_LOWEST | DESTINATION_LOGICAL | VECTOR_PIT);
            pit += 2;
            routes += 2;
        }
        check_equal(cpu->events[EVENT_PIT], pit + 1);
        check_equal(cpu->events[EVENT_NMI], nmi + 1);
    }
    print("ioapic: ok, %u routes\n", routes);
}

// ---- The local timer -----------------------------------------------------------------------

// How many to set off from the handler, and in which way.
static uint32_t again;
static bool by_deadline;

static void next_shot(void) {
    if (by_deadline)
        wrmsr(MSR_TSC_DEADLINE, tsc() + DEADLINE_CYCLES);
    else
        apic_write(APIC_TIMER_INITIAL, TIMER_COUNT);
}

static void timer_tick(struct cpu *cpu, uint32_t vector) {
    (void)vector;
    cpu->events[EVENT_TIMER]++;
    if (again && --again)
        next_shot();
    end_of_interrupt();
}

// One shot after the other.
static void shots(uint32_t ticks, uint32_t mode) {
    volatile uint32_t *seen = &cpus[0]->events[EVENT_TIMER];
    uint32_t until = *seen + ticks;
    by_deadline = mode == TIMER_DEADLINE;
    again = ticks;
    apic_write(APIC_LVT_TIMER, mode | VECTOR_TIMER);
    next_shot();
    wait_for(*seen >= until);
    check_equal(*seen, until);
}

void test_lapic(void) {
    uint32_t ticks = ticks_wanted();
    volatile uint32_t *seen = &cpus[0]->events[EVENT_TIMER];
    set_handler(VECTOR_TIMER, timer_tick);
    watchdog_use_pit(true);
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    shots(ticks, 0);

    uint32_t until = *seen + ticks;
    apic_write(APIC_LVT_TIMER, TIMER_PERIODIC | VECTOR_TIMER);
    apic_write(APIC_TIMER_INITIAL, TIMER_COUNT);
    wait_for(*seen >= until);
    apic_write(APIC_TIMER_INITIAL, 0);
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    watchdog_use_pit(false);
    print("lapic: ok, %u one-shots, %u ticks\n", ticks, ticks);
}

void test_deadline(void) {
    uint32_t ticks = ticks_wanted();
    if (!has_deadline_timer()) {
        print("deadline: skipped, CPUID has no TSC-deadline timer\n");
        return;
    }
    set_handler(VECTOR_TIMER, timer_tick);
    watchdog_use_pit(true);
    shots(ticks, TIMER_DEADLINE);
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    watchdog_use_pit(false);
    print("deadline: ok, %u deadlines\n", ticks);
}
