// bench.c: how long things take, in cycles of the TSC. Each bench prints one line, of words
// NAME=VALUE, which docs/platform-guests.md describes.

#include "pc.h"

#define DEFAULT_SAMPLES 100u
#define DEFAULT_BYTES 4096u

// From the set-up of a deadline to it.
#define DEADLINE_CYCLES 2000000u

// KVM's leaf with the frequency of the TSC, in kHz (Linux's Documentation/virt/kvm/x86/cpuid.rst
// has what is below it; VMware defined this one).
#define HYPERVISOR_CPUID 0x40000000
#define TIMING_CPUID 0x40000010

struct samples {
    uint32_t count, room;
    uint64_t *values;
};

static struct samples samples;

static void begin_samples(uint32_t room) {
    samples = (struct samples){0, room, allocate(room * sizeof(uint64_t))};
}

static void add_sample(uint64_t value) {
    if (samples.count < samples.room)
        samples.values[samples.count++] = value;
}

// 0: the CPU does not say.
static uint32_t tsc_khz(void) {
    if (cpuid(HYPERVISOR_CPUID, 0).eax < TIMING_CPUID)
        return 0;
    return cpuid(TIMING_CPUID, 0).eax;
}

// Shell's method: short, and fast enough for some hundred.
static void sort_samples(void) {
    uint64_t *v = samples.values;
    for (uint32_t gap = samples.count / 2; gap; gap /= 2)
        for (uint32_t i = gap; i < samples.count; i++)
            for (uint32_t k = i; k >= gap && v[k - gap] > v[k]; k -= gap) {
                uint64_t swap = v[k];
                v[k] = v[k - gap];
                v[k - gap] = swap;
            }
}

static void print_samples(const char *name) {
    sort_samples();
    check(samples.count);
    print("%s: khz=%u cpus=%u n=%u min=%lu median=%lu max=%lu\n", name, tsc_khz(), cpu_count,
          samples.count, samples.values[0], samples.values[samples.count / 2],
          samples.values[samples.count - 1]);
}

// ---- From the timer to the handler ---------------------------------------------------------

static volatile bool fired;
static volatile uint64_t fired_at;

static void note_time(struct cpu *cpu, uint32_t vector) {
    (void)cpu, (void)vector;
    fired_at = tsc();
    fired = true;
    end_of_interrupt();
}

void bench_timer(void) {
    if (!has_deadline_timer()) {
        print("bench-timer: skipped, CPUID has no TSC-deadline timer\n");
        return;
    }
    uint32_t count = parameter("samples=", DEFAULT_SAMPLES);
    begin_samples(count);
    set_handler(VECTOR_TIMER, note_time);
    apic_write(APIC_LVT_TIMER, TIMER_DEADLINE | VECTOR_TIMER);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t deadline = tsc() + DEADLINE_CYCLES;
        fired = false;
        wrmsr(MSR_TSC_DEADLINE, deadline);
        sleep_until(fired);
        add_sample(fired_at - deadline);
    }
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    print_samples("bench-timer");
}

// ---- There and back ------------------------------------------------------------------------

static volatile bool answered;

static void answer(struct cpu *cpu, uint32_t vector) {
    (void)vector;
    if (cpu->index)
        send_ipi(cpus[0]->apic_id, VECTOR_PING);
    else
        answered = true;
    end_of_interrupt();
}

// With one CPU, to itself.
void bench_ipi(void) {
    uint32_t count = parameter("samples=", DEFAULT_SAMPLES);
    uint32_t others = cpu_count > 1 ? cpu_count - 1 : 1;
    begin_samples(count);
    set_handler(VECTOR_PING, answer);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t target = cpus[(1 + i % others) % cpu_count]->apic_id;
        answered = false;
        uint64_t start = tsc();
        send_ipi(target, VECTOR_PING);
        sleep_until(answered);
        add_sample(tsc() - start);
    }
    print_samples("bench-ipi");
}

// ---- Bytes to the UART ---------------------------------------------------------------------

void bench_uart(void) {
    uint32_t bytes = parameter("bytes=", DEFAULT_BYTES);
    const char *text = alphabet(bytes);
    uint64_t start = tsc();
    uart_send_by_polling(text, bytes);
    uint64_t polled = tsc();
    uart_send_by_interrupt(text, bytes);
    uint64_t end = tsc();
    print("\nbench-uart: khz=%u bytes=%u polling=%lu interrupt=%lu\n", tsc_khz(), bytes,
          polled - start, end - polled);
}

// ---- Bring-up ------------------------------------------------------------------------------

void bench_smp(void) {
    uint64_t start = tsc();
    start_cpus();
    uint64_t end = tsc();
    print("bench-smp: khz=%u cpus=%u cycles=%lu\n", tsc_khz(), cpu_count, end - start);
}
