// litmus.h: runs a litmus test: a few instructions on each of some vCPUs, over variables that
// are 0 before, many times; counts the final states, and fails on one that the memory model
// forbids.
//
// The method is that of the litmus7 tool (Alglave, Maranget, Sarkar, Sewell, "Litmus: running
// tests against hardware", TACAS 2011): many instances of the variables, each on cache lines of
// its own, which all vCPUs run one after the other; before each they agree on a time of the TSC
// at which to start; and only after the last are results looked at.

#ifndef LITMUS_H
#define LITMUS_H

#include "stress.h"

#define INSTANCES 256
#define MAX_THREADS 4
#define MAX_OBSERVED 4

// Rounds by ring, when no parameter says how many; always a multiple of INSTANCES.
#define IN_RING3 16384
#define IN_RING0 256

// From the last arrival at a round to the start: time for the others to see it.
#define START_CYCLES 500

// By how many cycles, up to this, a thread then starts later, at random; a power of 2, less 1.
#define JITTER 63

// How long to wait at most for the others before an instance: they may have no host CPU.
#define MEET_SPINS 2000

// A variable of a test.
struct variable {
    cache_aligned volatile uint32_t value;
};

struct variables {
    struct variable x, y;
};

// What a thread read in one instance.
struct registers {
    uint32_t a, b;
};

static struct variables instances[INSTANCES];
static struct registers results[MAX_THREADS][INSTANCES];

struct litmus {
    uint32_t threads;
    // What each thread does.
    void (*thread[MAX_THREADS])(struct variables *, struct registers *);
    // What makes up a final state, as litmus7 names it: "0:rax", "[x]". Values are 0 to 3.
    const char *names[MAX_OBSERVED];
    // Collects those of an instance.
    void (*observe)(uint32_t instance, uint32_t *values);
    // Whether x86-TSO forbids this state; NULL where it allows all.
    bool (*forbidden)(const uint32_t *values);
};

// How often each state was seen; its index has two bits a value.
static uint32_t seen[1 << 2 * MAX_OBSERVED];

static inline void count_states(const struct litmus *test) {
    for (uint32_t i = 0; i < INSTANCES; i++) {
        uint32_t values[MAX_OBSERVED] = {0}, state = 0;
        test->observe(i, values);
        for (unsigned k = 0; k < MAX_OBSERVED; k++)
            state |= (values[k] & 3) << 2 * k;
        seen[state]++;
        instances[i].x.value = 0;
        instances[i].y.value = 0;
    }
}

// Writes a state to a port as litmus7 prints it.
static inline void out_state(uint16_t port, const struct litmus *test, const uint32_t *values) {
    for (unsigned k = 0; k < MAX_OBSERVED && test->names[k]; k++) {
        out_text(port, k ? " " : "");
        out_text(port, test->names[k]);
        out_text(port, "=");
        out_decimal(port, values[k]);
        out_text(port, ";");
    }
}

static inline void report_states(const struct litmus *test) {
    for (uint32_t state = 0; state < sizeof(seen) / sizeof(*seen); state++) {
        if (!seen[state])
            continue;
        uint32_t values[MAX_OBSERVED];
        for (unsigned k = 0; k < MAX_OBSERVED; k++)
            values[k] = state >> 2 * k & 3;
        out_state(PORT_LABEL, test, values);
        report_n(state, seen[state]);
        if (test->forbidden && test->forbidden(values)) {
            fail_begin(__FILE__, __LINE__);
            out_text(PORT_ASSERTION, "forbidden by x86-TSO: ");
            out_state(PORT_ASSERTION, test, values);
            fail_end();
        }
    }
}

// Waits, but not for ever, until `word` is not below `round`: whether it is.
static inline bool await(const volatile uint32_t *word, uint32_t round) {
    for (uint32_t spins = 0; *word < round; spins++) {
        if (spins == MEET_SPINS)
            return false;
        __builtin_ia32_pause();
    }
    return true;
}

// Has all threads leave at the same time, by the TSC, give or take a little. The first
// one sets the time when all have come to this round, the first being 1. Whether it worked out.
static inline bool meet(struct vcpu *me, uint32_t threads, uint32_t round) {
    static struct variable reached[MAX_THREADS];
    static cache_aligned volatile uint64_t start;
    static volatile uint32_t started;

    if (me->index == 0) {
        for (uint32_t i = 1; i < threads; i++)
            if (!await(&reached[i].value, round))
                return false;
        start = __builtin_ia32_rdtsc() + START_CYCLES;
        started = round;
    } else {
        reached[me->index].value = round;
        if (!await(&started, round))
            return false;
    }
    uint64_t mine = start + (random_fast(me) & JITTER);
    // Never far off, unless the TSCs of the vCPUs differ.
    while (mine - __builtin_ia32_rdtsc() < 2 * START_CYCLES)
        ;
    return true;
}

// Runs the test on the first vCPUs; further ones are done at once.
static inline void run_litmus(struct vcpu *me, const struct litmus *test) {
    static struct barrier begin, end;
    need_vcpus(me, test->threads);
    if (me->index >= test->threads)
        return;

    uint32_t rounds = iterations(me, IN_RING3, IN_RING0);
    for (uint32_t done = 0; done < rounds; done += INSTANCES) {
        barrier_wait(&begin, test->threads);
        bool together = true;
        for (uint32_t i = 0; i < INSTANCES; i++) {
            together = together && meet(me, test->threads, done + i + 1);
            test->thread[me->index](&instances[i], &results[me->index][i]);
        }
        barrier_wait(&end, test->threads);
        if (me->index == 0)
            count_states(test);
    }
    if (me->index == 0)
        report_states(test);
}

#endif
