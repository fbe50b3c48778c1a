// work.c: how CPUs wait: asleep, until an interrupt. The boot CPU hands work to the others and
// sleeps until it is done; a watchdog ends a wait that takes too long.

#include "pc.h"

// CPUs that have not done their work.
static _Atomic uint32_t outstanding;

static void woken(struct cpu *cpu, uint32_t vector) {
    (void)cpu, (void)vector;
    end_of_interrupt();
}

void wake(struct cpu *cpu) {
    send_ipi(cpu->apic_id, DELIVER_FIXED | VECTOR_WAKE);
}

void wake_boot_cpu(void) {
    wake(cpus[0]);
}

_Noreturn void sleep_and_work(struct cpu *cpu) {
    for (;;) {
        sleep_until(cpu->work);
        void (*work)(struct cpu *) = cpu->work;
        cpu->work = NULL;
        work(cpu);
        if (atomic_fetch_sub(&outstanding, 1) == 1)
            wake_boot_cpu();
    }
}

static void hand_out(struct cpu *cpu, void (*work)(struct cpu *)) {
    cpu->work = work;
    wake(cpu);
}

void begin_on(struct cpu *cpu, void (*work)(struct cpu *)) {
    outstanding = 1;
    hand_out(cpu, work);
}

void end_work(void) {
    wait_for(outstanding == 0);
}

void run_on(struct cpu *cpu, void (*work)(struct cpu *)) {
    if (cpu == this_cpu()) {
        work(cpu);
        return;
    }
    begin_on(cpu, work);
    end_work();
}

// The boot CPU's own part goes on while the others do theirs.
static void run(void (*work)(struct cpu *), bool here) {
    outstanding = cpu_count - 1;
    for (uint32_t i = 1; i < cpu_count; i++)
        hand_out(cpus[i], work);
    if (here)
        work(cpus[0]);
    end_work();
}

void run_on_others(void (*work)(struct cpu *)) {
    run(work, false);
}

void run_on_all(void (*work)(struct cpu *)) {
    run(work, true);
}

// ---- The watchdog --------------------------------------------------------------------------

// The local timer counts down at some 1 GHz by this divisor (SDM volume 3, figure 12-10): about
// half a minute. The exact time does not matter, only that no wait takes so long.
#define DIVIDE_BY_128 0xa
#define WATCHDOG_COUNT 250000000u

// With the PIT at its slowest, 18.2 Hz: the same.
#define WATCHDOG_TICKS 546u

static bool by_pit;
static volatile uint32_t ticks_left;
static const char *awaited = "";

_Noreturn static void give_up(void) {
    fail("no progress for half a minute, waiting for %s", awaited);
}

static void watchdog(struct cpu *cpu, uint32_t vector) {
    (void)cpu, (void)vector;
    give_up();
}

// One may still come when the wait is over.
static void watchdog_tick(struct cpu *cpu, uint32_t vector) {
    (void)cpu, (void)vector;
    end_of_interrupt();
    if (ticks_left && --ticks_left == 0)
        give_up();
}

void watchdog_use_pit(bool use) {
    uint32_t gsi = platform.isa_gsi[0];
    by_pit = use;
    if (use) {
        io_apic_route(gsi, platform.isa_flags[0], cpus[0]->apic_id, VECTOR_WATCHDOG_TICK);
        pit_start(0);
    } else {
        io_apic_mask(gsi);
        pit_stop();
    }
}

void watchdog_start(const char *what) {
    awaited = what;
    if (by_pit) {
        ticks_left = WATCHDOG_TICKS;
        return;
    }
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_128);
    apic_write(APIC_LVT_TIMER, VECTOR_WATCHDOG);
    apic_write(APIC_TIMER_INITIAL, WATCHDOG_COUNT);
}

void watchdog_stop(void) {
    if (by_pit)
        ticks_left = 0;
    else
        apic_write(APIC_TIMER_INITIAL, 0);
}

void set_up_work(void) {
    set_handler(VECTOR_WAKE, woken);
    set_handler(VECTOR_WATCHDOG, watchdog);
    set_handler(VECTOR_WATCHDOG_TICK, watchdog_tick);
}
