// queue-mpmc: a bounded queue for many producers and many consumers, by Dmitry Vyukov's algorithm:
// a ring whose slots have sequence numbers, which say whose turn it is. Every item comes once, and
// those of one producer come to each consumer in order.
//
// Mode:     user
// vCPUs:    up to 16; each produces and consumes
// Input:    rbp: items of each vCPU (0 means 8192, or 100 in ring 0; 8192 at most)
// Output:   none
// Outcomes: full=<0 or 1>; empty=<0 or 1>; whether any vCPU met a full and an empty queue
// Exit:     0; an item that is lost, doubled or out of order fails the iteration

#include "stress.h"

#define CAPACITY 64
#define MOST_ITEMS 8192

struct slot {
    cache_aligned _Atomic uint32_t sequence;
    uint32_t producer;
    uint32_t number;
};

// A slot waits for the put of its sequence number, and, when that is one higher, for the take.
static struct slot slots[CAPACITY];
static cache_aligned _Atomic uint32_t tail;     // puts begun
static cache_aligned _Atomic uint32_t head;     // takes begun

static cache_aligned _Atomic uint32_t consumed;
static _Atomic uint32_t was_full, was_empty;
// A bit for each item of each vCPU: whether it has come.
static _Atomic uint8_t came[16][MOST_ITEMS / 8];

// The slot for the next put or take, by its counter, which it moves on; NULL: full, or empty.
static struct slot *claim(_Atomic uint32_t *counter, uint32_t ready, uint32_t *position) {
    *position = atomic_load_explicit(counter, memory_order_relaxed);
    for (;;) {
        struct slot *slot = &slots[*position % CAPACITY];
        uint32_t sequence = atomic_load_explicit(&slot->sequence, memory_order_acquire);
        int32_t ahead = (int32_t)(sequence - (*position + ready));
        if (ahead < 0)
            return NULL;
        if (ahead > 0)
            *position = atomic_load_explicit(counter, memory_order_relaxed);
        else if (atomic_compare_exchange_weak_explicit(counter, position, *position + 1,
                                                       memory_order_relaxed,
                                                       memory_order_relaxed))
            return slot;
    }
}

static bool put(uint32_t producer, uint32_t number) {
    uint32_t position;
    struct slot *slot = claim(&tail, 0, &position);
    if (!slot)
        return false;
    slot->producer = producer;
    slot->number = number;
    atomic_store_explicit(&slot->sequence, position + 1, memory_order_release);
    return true;
}

static bool take(uint32_t *producer, uint32_t *number) {
    uint32_t position;
    struct slot *slot = claim(&head, 1, &position);
    if (!slot)
        return false;
    *producer = slot->producer;
    *number = slot->number;
    atomic_store_explicit(&slot->sequence, position + CAPACITY, memory_order_release);
    return true;
}

// Takes an item, if there is one, and checks it; `next` has the least number due by producer.
static bool consume(uint32_t next[], uint32_t vcpus, uint32_t items) {
    uint32_t producer, number;
    if (!take(&producer, &number))
        return false;
    check(producer < vcpus && number < items);
    check(number >= next[producer]);
    next[producer] = number + 1;
    uint8_t bit = (uint8_t)(1 << number % 8);
    check(!(atomic_fetch_or(&came[producer][number / 8], bit) & bit));
    return true;
}

void stress_main(struct vcpu *me) {
    static struct barrier start, finish;
    uint32_t items = iterations(me, MOST_ITEMS, 100), number = 0;
    uint32_t next[MAX_VCPUS] = {0};

    check(me->count <= 16);
    check(items <= MOST_ITEMS);
    if (me->index == 0)
        for (uint32_t i = 0; i < CAPACITY; i++)
            slots[i].sequence = i;
    barrier_wait(&start, me->count);

    // At random, but for where only one of the two can go on.
    for (uint32_t spins = 0; atomic_load(&consumed) < items * me->count;) {
        if (number < items && random_fast(me) % 2) {
            if (put(me->index, number))
                number++;
            else
                was_full = 1;
        } else if (consume(next, me->count, items)) {
            atomic_fetch_add(&consumed, 1);
        } else {
            was_empty = 1;
            spin_wait(&spins);
        }
    }
    check_eq(number, items);
    barrier_wait(&finish, me->count);

    if (me->index == 0) {
        check_eq(head, tail);
        check_eq(tail, items * me->count);
        label("full=");
        label_decimal(was_full);
        label("; empty=");
        label_decimal(was_empty);
        label(";");
        report(was_full | was_empty << 1);
    }
}
