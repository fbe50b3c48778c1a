// halt.c: HLT, and whether every interrupt ends it, also one that comes just when a CPU is about
// to halt: two by two, CPUs wake each other and go to sleep at the same moment.

#include "pc.h"

#define DEFAULT_ROUNDS 20u

static uint32_t rounds;

static void pinged(struct cpu *cpu, uint32_t vector) {
    (void)vector;
    cpu->token++;
    end_of_interrupt();
}

static void got_nmi(struct cpu *cpu, uint32_t vector) {
    (void)vector;
    cpu->events[EVENT_NMI]++;
    wake_boot_cpu();
}

// The other one of a pair; the last of an odd number has none.
static struct cpu *partner(struct cpu *cpu) {
    uint32_t index = cpu->index ^ 1;
    return index < cpu_count ? cpus[index] : NULL;
}

// The even one begins; an answer comes while the asker goes to sleep.
static void ping_pong(struct cpu *self) {
    struct cpu *other = partner(self);
    if (!other)
        return;
    for (uint32_t round = 1; round <= rounds; round++) {
        if (self->index < other->index)
            send_ipi(other->apic_id, VECTOR_PING);
        sleep_until(self->token == round);
        if (self->index > other->index)
            send_ipi(other->apic_id, VECTOR_PING);
    }
}

// An interrupt that waits already when HLT begins.
static void ping_self(struct cpu *self) {
    for (uint32_t round = 1; round <= rounds; round++) {
        interrupts_off();
        send_ipi(self->apic_id, VECTOR_PING);
        if (self->token != rounds + round - 1)
            fail("CPU %u took an interrupt while they are off", self->index);
        sleep_with_interrupts();
        sleep_until(self->token == rounds + round);
    }
}

// HLT with interrupts off ends by an NMI alone.
static void sleep_until_nmi(struct cpu *self) {
    uint32_t before = self->events[EVENT_NMI];
    interrupts_off();
    self->token++;
    wake_boot_cpu();
    while (self->events[EVENT_NMI] == before)
        halt();
    self->token++;
    interrupts_on();
}

// One that comes right before HLT does not end it, so this goes on until it has ended.
static void wake_by_nmi(struct cpu *cpu) {
    uint32_t before = cpu->token;
    begin_on(cpu, sleep_until_nmi);
    wait_for(cpu->token == before + 1);
    do {
        uint32_t nmis = cpu->events[EVENT_NMI];
        send_ipi(cpu->apic_id, DELIVER_NMI);
        wait_for(cpu->events[EVENT_NMI] != nmis);
        check_equal(cpu->events[EVENT_NMI], nmis + 1);
    } while (cpu->token == before + 1);
    end_work();
    check_equal(cpu->token, before + 2);
}

// Who has no partner is not pinged in the first test, and begins where it would end.
static void start_over(struct cpu *cpu) {
    cpu->token = partner(cpu) ? 0 : rounds;
}

void test_hlt(void) {
    rounds = parameter("rounds=", DEFAULT_ROUNDS);
    set_handler(VECTOR_PING, pinged);
    set_handler(VECTOR_NMI, got_nmi);
    for (uint32_t i = 0; i < cpu_count; i++)
        start_over(cpus[i]);
    run_on_all(ping_pong);
    run_on_all(ping_self);
    for (uint32_t i = 0; i < cpu_count; i++)
        check_equal(cpus[i]->token, 2 * rounds);
    for (uint32_t i = 1; i < cpu_count; i++)
        wake_by_nmi(cpus[i]);
    print("hlt: ok, %u rounds on %u CPUs\n", rounds, cpu_count);
}
